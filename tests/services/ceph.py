"""Ceph's RADOS gateway as a real S3 server, from Debian's packages (`.ci/services ceph`).

One monitor, one OSD (BlueStore in a sparse file) and one gateway, cephx on, pools of size 1,
everything on loopback and below one folder:

    python -m tests.services.ceph start FOLDER     prints the environment of a client
    python -m tests.services.ceph stop FOLDER

Method: https://docs.ceph.com/en/pacific/install/manual-deployment/, without the manager daemon,
which S3 does not need.
"""

import json
import secrets
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.processes import answers, free_port, shared, stop, wait_until
from tests.services.s3 import S3Server

PROGRAMS = (
    "ceph-mon",
    "ceph-osd",
    "radosgw",
    "ceph",
    "ceph-authtool",
    "monmaptool",
    "radosgw-admin",
)

_DAEMONS = ("client.rgw", "osd.0", "mon.a")
"""In the order in which they are stopped."""

_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = {mon_address}
keyring = {folder}/keyring
run_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
pid_file = {folder}/run/$name.pid
log_file = {folder}/log/$name.log
crash_dir = {folder}/crash
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_data_avail_crit = 1

[mon.a]
mon_data = {folder}/mon

[osd.0]
osd_data = {folder}/osd
osd_objectstore = bluestore
bluestore_block_size = 10737418240
osd_memory_target = 939524096

[client.rgw]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{s3_port}
"""


def start(folder: Path) -> S3Server:
    """Start the three daemons below `folder` and make a user; raises when one does not start."""
    for name in ("mon", "osd", "rgw", "run", "log", "crash"):
        (folder / name).mkdir(parents=True)
    fsid, mon_address, s3_port = str(uuid.uuid4()), f"[v2:127.0.0.1:{free_port()}]", free_port()
    (folder / "ceph.conf").write_text(
        _CONFIGURATION.format(fsid=fsid, folder=folder, mon_address=mon_address, s3_port=s3_port)
    )
    _write_keyring(folder / "keyring")
    server = S3Server(f"http://127.0.0.1:{s3_port}", "pvar-tests", secrets.token_hex(20))
    try:
        _start_monitor(folder, fsid, mon_address)
        _start_osd(folder)
        _start_gateway(folder, s3_port)
        _make_user(folder, server)
    except BaseException:
        stop_all(folder)
        raise
    return server


def stop_all(folder: Path) -> None:
    """Stop what runs below `folder`; nothing happens if nothing does."""
    for name in _DAEMONS:
        pid_file = folder / "run" / f"{name}.pid"
        if pid_file.exists():
            stop(int(pid_file.read_text()), marker=str(folder / "ceph.conf"))


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """A server for all processes that name this folder; its data goes with the last of them."""
    cluster, client = folder / "cluster", folder / "client.json"

    def begin() -> None:
        shutil.rmtree(cluster, ignore_errors=True)  # of an attempt that failed
        client.write_text(json.dumps(start(cluster)))

    def end() -> None:
        client.unlink(missing_ok=True)
        stop_all(cluster)
        shutil.rmtree(cluster)

    with shared(folder, is_up=client.exists, start=begin, stop=end):
        yield S3Server(*json.loads(client.read_text()))


def _start_monitor(folder: Path, fsid: str, address: str) -> None:
    monmap, keyring = str(folder / "monmap"), str(folder / "keyring")
    _run(folder, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
    _run(folder, "ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
    _run(folder, "ceph-mon", "-i", "a")


def _start_osd(folder: Path) -> None:
    osd_uuid = str(uuid.uuid4())
    _run(folder, "ceph", "osd", "new", osd_uuid, "0")
    _run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_uuid)
    _run(folder, "ceph-osd", "-i", "0")


def _start_gateway(folder: Path, port: int) -> None:
    _run(folder, "radosgw", "-n", "client.rgw")
    wait_until(lambda: answers(port), f"the gateway's answer (see {folder / 'log'})")


def _make_user(folder: Path, server: S3Server) -> None:
    _run(
        folder,
        *("radosgw-admin", "-n", "client.rgw", "user", "create"),
        *("--uid", "pvar", "--display-name", "pvar tests"),
        *("--access-key", server.access_key, "--secret-key", server.secret_key),
    )


def _write_keyring(keyring: Path) -> None:
    """One file with the keys of all; the monitor takes its users from it."""
    everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
    for user in ("mon.", "client.admin", "osd.0", "client.rgw"):
        create = () if keyring.exists() else ("--create-keyring",)
        subprocess.run(
            ["ceph-authtool", str(keyring), *create, "--gen-key", "-n", user, *everything],
            check=True,
            capture_output=True,
        )


def _run(folder: Path, program: str, *arguments: str) -> None:
    """Run one command on this cluster; the daemons leave for the background when they are up."""
    command = [program, "--conf", str(folder / "ceph.conf"), *arguments]
    # Output goes to a file: a daemon would hold a pipe open and keep us waiting.
    with (folder / "log" / "commands.log").open("ab") as log:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{program} {arguments[0]} failed: see {log.name}")


def main(verb: str, folder: Path) -> None:
    """The command: `start` prints a client's environment and the seconds it took."""
    if verb == "start":
        began = time.monotonic()
        for name, value in start(folder).environment().items():
            print(f"{name}={value}")
        print(f"# up in {time.monotonic() - began:.1f} s")
    elif verb == "stop":
        stop_all(folder)
    else:
        raise SystemExit("usage: python -m tests.services.ceph start|stop FOLDER")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).absolute())
