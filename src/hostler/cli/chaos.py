"""`hostler chaos`: break a system on purpose, and judge what its history says."""

from cyclopts import App

chaos = App(name="chaos", help="Break a system on purpose, and judge what its history says.")
chaos.command(
    "hostler.cli.check:check", name="check", help="Judge a history, or a live queue, by every promise and bound."
)
chaos.command("hostler.cli.rig.command:run", name="run", help="Break a rig of real processes, and judge what it did.")
chaos.command(
    "hostler.cli.rig.soak_command:command", name="soak", help="Load a rig for a long time, and show what drifts."
)
