"""`retrieval completion`: the script that lets a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class

from retrieval_pipeline.cli.output import echo_bytes

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands and options when you press Tab.

    \b
    bash:  echo 'eval "$(retrieval completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(retrieval completion zsh)"' >> ~/.zshrc
    fish:  retrieval completion fish > ~/.config/fish/completions/retrieval.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "retrieval", "_RETRIEVAL_COMPLETE").source()
    echo_bytes(script.encode())
