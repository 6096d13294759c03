"""`python -m trainerd` is the console script `trainerd`."""

from trainerd.cli.main import main

if __name__ == "__main__":
    main()
