"""`python -m trainerd` is the console script `trainerd`."""

from trainerd.cli.needs_daemon import refuse_without_daemon


def main() -> None:
    """Run the command line, or say what to install where trainerd was installed for training only."""
    refuse_without_daemon()
    from trainerd.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
