"""The command line. Each command's module is imported when it is called, so `--help` is quick.

A `PvarError` ends the process with its message and exit code 1; a traceback is a defect of ours.
"""

import os
import sys
from importlib import metadata

from cyclopts import App

from pvar.errors import PvarError

app = App(
    name="pvar",
    version=lambda: metadata.version("pvar"),
    help="Retrain language models on the prompts that teach them most.",
    help_on_error=False,
)
app.command("flows.commands.run:run", help="Run the whole pipeline, reusing what is complete.")
app.command("flows.commands.stage:stage", help="Run one stage.")
app.command(
    "flows.commands.show:show", help="Show the plan: each stage, its artifact, complete or missing."
)
app.command("flows.commands.schema:schema", help="Print every key of the configuration.")
app.command("flows.commands.report:report", help="Write the HTML report of a run.")
app.command(
    "flows.commands.gradients:gradients",
    help="Measure DPO gradients per prompt against preference variance.",
)
app.command("flows.commands.history:history", help="Show who moved a model's champion, and why.")
app.command("flows.commands.rollback:rollback", help="Make an earlier version the champion again.")
app.command("flows.commands.approve:approve", help="Approve a version that passed the gate.")
app.command(
    "flows.commands.lineage:lineage",
    help="Show what a model or artifact was made from, and what was made from it.",
)
app.command(
    "flows.commands.deploy:deploy", help="Register deployments and automations at a Prefect server."
)
app.command(
    "flows.commands.serve:serve", help="Prefect server, MLflow server and a worker on this machine."
)
app.command("flows.commands.notify:notify", help="Announce new preference data.")
app.command("flows.commands.retrain:retrain", help="Look at the incoming data and retrain on it.")
app.command("flows.commands.compare:compare", help="Compare selections with random prompts.")
app.command("flows.commands.gc:gc", help="Delete artifacts that no run or model version needs.")
app.command("flows.commands.doctor:doctor", help="Say what is installed, reachable and missing.")
app.command(
    "flows.commands.variance:variance",
    help="Compute the preference variance of each prompt in a file.",
)
app.command("flows.commands.select:select", help="Select prompts from a file of rewards.")
app.command(
    "flows.commands.winrate:app",
    name="winrate",
    help="Compute win rates of AlpacaEval 2 and Arena-Hard.",
)
app.command("flows.commands.judge_parse:app", name="judge-parse", help="Parse the texts of judges.")


def main() -> None:
    """Entry point of the `pvar` command."""
    try:
        app()
    except PvarError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
