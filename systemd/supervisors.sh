# Sourced by install.sh and uninstall.sh: the supervisors that run from PREFIX, of all users.

# supervisors: the process id of each.
supervisors() {
    for folder in /proc/[0-9]*; do
        words=$(tr '\000' '\n' 2> /dev/null < "$folder/cmdline") || continue
        case $words in "$PREFIX"/bin/*) ;; *) continue ;; esac
        if printf '%s\n' "$words" | grep -qx run; then echo "${folder#/proc/}"; fi
    done
}

# main_pid: the supervisor of the system's unit, 0 if there is none.
main_pid() {
    systemctl show --property MainPID --value trainerd 2> /dev/null || echo 0
}

owner_of() { stat -c %U "/proc/$1"; }

# state_of PID: its state folder.
state_of() {
    state=$(tr '\000' '\n' < "/proc/$1/cmdline" | sed -n -e '/^--state$/{n;p;}' -e 's/^--state=//p' | tail -n 1)
    case $state in
    /*) echo "$state" ;;
    *) echo "$(readlink "/proc/$1/cwd")/${state:-.trainerd}" ;;
    esac
}

# as_owner PID COMMAND...: run a command as the user of a process.
as_owner() {
    pid=$1
    shift
    if [ "$(id -u)" != 0 ] || [ "$(owner_of "$pid")" = root ]; then
        "$@"
    else
        setpriv --reuid="$(stat -c %u "/proc/$pid")" --regid="$(stat -c %g "/proc/$pid")" --init-groups "$@"
    fi
}

# check PID PYTHON: print why the program of PYTHON could not take the place of a supervisor; fail if there is a reason.
check() {
    (
        cd "/proc/$1/cwd" 2> /dev/null || cd /
        sed -z '1,/^run$/d' "/proc/$1/cmdline" > "$build/arguments"
        as_owner "$1" xargs -0 "$2" -m trainerd run --check < "$build/arguments" 2>&1 > /dev/null
    )
}

# what_to_do PID VERB: how the owner of a supervisor renews it (reload), or ends it (disable --now).
what_to_do() {
    if grep -q '/trainerd\.service' "/proc/$1/cgroup" 2> /dev/null; then
        echo "as $(owner_of "$1"): systemctl --user $2 trainerd"
    elif [ "$2" = reload ]; then
        echo "as $(owner_of "$1"): $PREFIX/bin/trainerd reload --state $(state_of "$1")"
    else
        echo "as $(owner_of "$1"): kill $1   (its jobs checkpoint and leave)"
    fi
}
