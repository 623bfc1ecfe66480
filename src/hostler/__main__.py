"""`python -m hostler` is the command `hostler`."""

from hostler.cli.main import main

if __name__ == "__main__":
    main()
