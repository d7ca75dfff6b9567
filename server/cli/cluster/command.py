"""`fanfare cluster`: a whole cluster on this machine, and what one wants to know of any."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.cluster.haproxy import Role, Upstream, clients_for, configuration
from server.cli.cluster.plan import BASE_PORT, Plan, environment, highest_port, plan_for
from server.cli.terminal import (
    api_at,
    command_line,
    output,
    printable,
    run,
    server_option,
)
from server.config.config import Config, resolve

if TYPE_CHECKING:
    from loadtest.client.connection import Message

NODES_MAX = 50
DRAINED_LOOK_S = 1.0


@click.group(invoke_without_command=True)
@click.option("--nodes", type=click.IntRange(1, NODES_MAX), default=3, show_default=True, help="How many.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/cluster"),
    show_default=True,
    help="Where PostgreSQL, Redis and the nodes keep what is theirs.",
)
@click.option(
    "--base-port",
    type=click.IntRange(0, 65_500),
    default=BASE_PORT,
    show_default=True,
    help="Node 1 has the three ports after it, node 2 those ten further on; 0 takes any free ones.",
)
@click.option(
    "--proxy", is_flag=True, help="Run HAProxy, which must be installed, in front: on the base port."
)
@click.pass_context
def cluster(ctx: click.Context, nodes: int, data_dir: Path, base_port: int, proxy: bool) -> None:
    """Run a whole cluster on this machine until Ctrl-C or SIGTERM.

    That is a PostgreSQL, a Redis and so many nodes, each a process of its own. Settings in FANFARE_*
    variables or fanfare.toml hold for all nodes, but for those that must differ or that the command brings
    along. A node that ends is not started again. Nothing outlives the command, not even when it is killed.
    """
    if ctx.invoked_subcommand is not None:
        return
    if highest_port(nodes, base_port) > 65_535:
        raise click.UsageError(f"--base-port {base_port} is too high for {nodes} nodes.")

    async def main() -> int:
        import trio

        from server.cli.cluster.processes import ClusterNode, supervisor

        resolved = resolve(None, os.environ, {})
        directory = _made(data_dir)
        author_key = _author_key(resolved.config, directory)
        plan = plan_for(nodes, base_port, resolved.config, author_key, proxy=proxy)
        haproxy = _haproxy(plan, directory) if plan.proxy_port is not None else ()
        options = () if resolved.file is None else ("--config", str(resolved.file.absolute()))
        async with supervisor(directory, nodes, haproxy) as kept, trio.open_nursery() as nursery:
            shared = {
                "database_url": kept.database_url,
                "redis_url": kept.redis_url,
                "secret": _secret(resolved.config, directory),
            }
            first, *rest = [
                ClusterNode(
                    place.name,
                    place.directory(directory),
                    environment(os.environ, plan, place, directory, shared),
                    kept.held,
                    options=options,
                    end_within_s=resolved.config.drain_s + 30,
                )
                for place in plan.places
            ]
            # Alone, for it makes the tables and adds the samples.
            await nursery.start(first.run)
            async with trio.open_nursery() as starting:
                for node in rest:
                    starting.start_soon(nursery.start, node.run)
            kept.nodes_are_up()
            greet(plan)
        raise click.ClickException("No node is left.")

    run(main, on_signal=0)


def _made(data_dir: Path) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    return data_dir.absolute()


def _secret(config: Config, directory: Path) -> str:
    """One for all: the configured one, or the cluster's own."""
    from server.security.tokens import SecretError, load_secret

    try:
        return load_secret(config.secret, directory).decode()
    except SecretError as error:
        raise click.ClickException(f"{error}.") from error


def _author_key(config: Config, directory: Path) -> str:
    """As `_secret`."""
    from server.security.tokens import SecretError, load_author_key

    try:
        return load_author_key(config.author_key, None, directory)
    except SecretError as error:
        raise click.ClickException(f"{error}.") from error


def _haproxy(plan: Plan, directory: Path) -> Sequence[str]:
    """What the supervisor needs to know of it. Raises ClickException when it is not installed."""
    import resource

    from server.cli.cluster.supervisor import LISTENER

    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise click.ClickException("HAProxy is not installed (apt-get install haproxy); go without --proxy.")
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    upstreams = [Upstream(each.name, plan.host, each.http_port, each.realtime_port) for each in plan.places]
    file = directory / "haproxy.cfg"
    file.write_text(
        configuration(
            upstreams,
            bind=LISTENER,
            clients_max=clients_for(files),
            per_address_max=clients_for(files),  # all that is on this machine has one
            note="Written by `fanfare cluster` at every start: edits are lost.",
        )
    )
    return found, str(file), plan.listens_on, str(plan.proxy_port)


def greet(plan: Plan) -> None:
    """Say what runs where, and what to type next."""
    count = len(plan.places)
    front = plan.url(plan.places[0]) if plan.proxy_port is None else plan.proxy_url
    click.echo(f"A cluster of {count} {'node' if count == 1 else 'nodes'} is up. Ctrl-C ends it.")
    width = max(len(place.name) for place in plan.places)
    for place in plan.places:
        click.echo(f"  {place.name.ljust(width)}  {plan.url(place)}  {plan.ws_url(place)}")
    if plan.proxy_port is not None:
        click.echo(f"  {'HAProxy'.ljust(width)}  {front}  in front of them all")
    key = f"#key={plan.author_key}" if plan.key_made else ""
    click.echo(f"In a browser: {front} to play, {front}/host{key}, {front}/author{key}")
    click.echo("In another terminal:")
    if plan.key_made:
        click.echo(f"  export FANFARE_AUTHOR_KEY={plan.author_key}")
    rows = [
        (command_line(front, "cluster status"), "shows the nodes"),
        (command_line(front, "session start european-capitals"), "opens a session and prints its code"),
        (command_line(plan.url(plan.places[-1]), "bots CODE --players 200"), "lets 200 bots play in it"),
    ]
    if count > 1:
        rows.append((command_line(front, f"cluster drain {plan.places[0].name}"), "moves its sessions away"))
    width = max(len(words) for words, _ in rows)
    for words, meaning in rows:
        click.echo(f"  {words.ljust(width)}  {meaning}")


@cluster.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@server_option
def status(as_json: bool, url: str) -> None:
    """Show the nodes of a cluster, as the one that is asked knows them."""

    async def main() -> int:
        async with api_at(url) as api:
            found = await api.cluster()
        if as_json:
            import orjson

            click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        else:
            _print_status(found)
        return 0

    run(main)


def _print_status(found: Message) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("Node", "Role", "State", box=None)
    for column in ("Shards", "Sessions", "Players", "Connections", "Queued", "Lag", "Busy"):
        table.add_column(column, justify="right")
    table.add_column("Version")
    table.add_column("Since")
    for node in found["nodes"]:
        cells = (
            node["name"],
            node["role"],
            node["state"],
            *(f"{node[key]:,}" for key in ("shards", "sessions", "players", "connections", "queued")),
            f"{node['lag_ms']:,.0f} ms",
            f"{node['busy']:.0%}",
            node["version"],
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(node["started_at"] / 1000)),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    output().print(table)
    match found["redis_up"]:
        case None:
            click.echo("This node is alone.")
        case True:
            click.echo(f"Redis is up. Cluster {printable(found['cluster'])}.")
        case _:
            click.echo("Redis is away: sessions go on, and none is taken over meanwhile.")


@cluster.command()
@click.argument("node")
@click.option("--wait", is_flag=True, help="Until it has no sessions any more.")
@server_option
def drain(node: str, wait: bool, url: str) -> None:
    """Have the node NODE move its sessions to the others, and take no new ones.

    It stays until somebody ends it, and joins the cluster again after a restart.
    """

    async def main() -> int:
        import trio

        async with api_at(url) as api:
            await api.drain(node)
            if not wait:
                click.echo(f"{node} is draining. {command_line(url, 'cluster status')} shows how far it is.")
                return 0
            while sessions_on(await api.cluster(), node):  # noqa: ASYNC110 - in another process
                await trio.sleep(DRAINED_LOOK_S)
        click.echo(f"{node} has no sessions any more.")
        return 0

    run(main)


def sessions_on(found: Message, name: str) -> int:
    """How many sessions that node has. One that gives no sign of life has none."""
    return sum(node["sessions"] for node in found["nodes"] if node["name"] == name)


@cluster.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@click.option(
    "--realtime", multiple=True, metavar="NODE", help="A node of the role realtime; again for more."
)
@click.option(
    "--api", multiple=True, metavar="NAME=HOST:HTTP_PORT", help="A node of the role api; again for more."
)
@click.option(
    "--clients", type=click.IntRange(10, 10_000_000), help="Connections at a time.  [default: 150000]"
)
@click.option(
    "--per-address",
    type=click.IntRange(1, 10_000_000),
    help="Connections at a time from one address.  [default: 6000]",
)
@click.option(
    "--proxy-hops", type=click.IntRange(1, 9), help="Trusted proxies in front of HAProxy.  [default: none]"
)
def haproxy(
    nodes: tuple[str, ...],
    realtime: tuple[str, ...],
    api: tuple[str, ...],
    clients: int | None,
    per_address: int | None,
    proxy_hops: int | None,
) -> None:
    """Print a configuration of HAProxy in front of these nodes.

    NODE is NAME=HOST:HTTP_PORT:REALTIME_PORT. It listens on port 5000. Each node has an address of its own
    with public_url = http://HOST:5000/n/{node} and public_ws_url = ws://HOST:5000/n/{node}/ws.
    """
    given: list[tuple[Role, tuple[str, ...]]] = [("both", nodes), ("realtime", realtime), ("api", api)]
    numbers = {
        "--clients": ("clients_max", clients),
        "--per-address": ("per_address_max", per_address),
        "--proxy-hops": ("proxy_hops", proxy_hops),
    }
    options: dict[str, Any] = {key: value for key, value in numbers.values() if value is not None}
    words = [*nodes, *(f"--realtime {each}" for each in realtime), *(f"--api {each}" for each in api)]
    words += [f"{option} {value}" for option, (_, value) in numbers.items() if value is not None]
    try:
        upstreams = [Upstream.parse(text, role) for role, texts in given for text in texts]
        made = configuration(
            upstreams, note="\n#   ".join(["Made by: fanfare cluster haproxy", *words]), **options
        )
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    click.echo(made, nl=False)
