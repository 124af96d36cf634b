"""`retrieval demo`: try everything on bundled photographs."""

from pathlib import Path

import click

from retrieval_pipeline.cli.output import report
from retrieval_pipeline.cli.parameters import FilePath


@click.command()
@click.option(
    "--directory",
    type=FilePath(),
    default=Path("retrieval-demo"),
    show_default=True,
    help="Where the demo keeps its settings, tables and pages.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the gallery in the browser.")
def demo(directory: Path, open_page: bool) -> None:
    """Index a few bundled photographs and answer some queries: no network, about a minute."""
    from retrieval_pipeline.cli.demo_run import run_demo

    page = run_demo(directory.absolute(), say=report)
    if open_page:
        import webbrowser

        webbrowser.open(page.as_uri())
