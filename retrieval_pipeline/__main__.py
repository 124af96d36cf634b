"""The entry point of `retrieval`, which `python -m retrieval_pipeline` is, too."""

import signal


def run() -> None:
    """Run the command line. Ctrl-C while it is loaded ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from retrieval_pipeline.cli.main import main

    main()


if __name__ == "__main__":
    run()
