#!/usr/bin/env python3
"""torchrun, for our scripts: `python tools/torchrun.py OPTIONS SCRIPT ARGUMENTS`; `tools/many_machines.md` tells of it.

What differs: the last words are the failed process's own, not the launcher's stack trace. With `--max_restarts N` only
what may go better next time is tried again, not what a process has put into words itself. Several machines keep the
order of `--node_rank`, and take one back that was lost; torchrun's own ways of meeting do the one or the other.
"""
import fcntl
import logging
import os
import socket
import struct
import sys
import tempfile
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `tools`, whoever else has one
import tools

# isort: split
QUIET = {'TORCH_CPP_LOG_LEVEL': 'FATAL'} if 'TORCH_CPP_LOG_LEVEL' not in os.environ else {}
os.environ |= QUIET  # of the launcher itself, which torch's import reads: a lost connection is told in words below
from torch.distributed import DistError, launcher
from torch.distributed.elastic.agent.server import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousError,
    RendezvousTimeoutError,
    dynamic_rendezvous,
)
from torch.distributed.run import parse_args, parse_min_max_nnodes, run

UNANSWERED = 30  # seconds after which the first machine is given up; Linux would try for a quarter of an hour


class Meeting(dynamic_rendezvous.DynamicRendezvousHandler):
    """torchrun's elastic meeting point of machines, which have the numbers that they were given."""

    machine: int  # which of them this is

    def _get_world(self) -> tuple[int, int]:
        machines = super()._get_world()[1]
        if self._get_store().add(f'machine {self.machine}', 1) > 1:
            raise ValueError(f'two of the {machines} machines have NODE_RANK={self.machine}: each needs its own.')
        for number in os.listdir('/proc/self/fd') if sys.platform == 'linux' else []:
            with suppress(OSError), socket.socket(fileno=os.dup(int(number))) as connection:  # most are no sockets
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNANSWERED)
        return self.machine, machines

    def lost(self) -> int:
        """How many of the machines that met have been silent for some 15 seconds; as last asked for."""
        return self.settings.max_nodes - len(self._state_holder.state.participants)


class Agent(LocalElasticAgent):
    """Starts and watches the processes of this machine; says what it does about one that ends too soon."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result, spec = super()._monitor_workers(worker_group), worker_group.spec
        meeting = spec.rdzv_handler
        if not self._remaining_restarts:
            return result
        if result.is_failed():
            failures = result.failures.values()  # the first one first
            if any(said_why(failure) for failure in failures):
                self._remaining_restarts = 0
                return result
            why = manner(next(iter(failures)))
        elif result.state is WorkerState.HEALTHY and isinstance(meeting, Meeting) and meeting.lost():
            why = 'a machine is silent'
            result = RunResult(state=WorkerState.UNHEALTHY)
        else:
            return result
        machines = worker_group.group_world_size
        print(f'{why}. Restart {spec.max_restarts - self._remaining_restarts + 1} of {spec.max_restarts}'
              f'{f", as soon as all {machines} machines are there" if machines > 1 else ""}.', file=sys.stderr)
        return result


def said_why(failure: ProcessFailure) -> bool:
    """Whether the process itself ended with an error that a user can act on; `tools` reports all other exceptions."""
    return failure.exitcode in (1, 2) and not os.path.isfile(failure.error_file)


def manner(failure: ProcessFailure) -> str:
    how = f'was killed by {failure.signal_name()}' if failure.exitcode < 0 else 'ended with an exception'
    return f'process {failure.local_rank} {how}'


def meet(options: Namespace, folder: str) -> None:
    """Completes torchrun's options: where and how this machine meets the others, as which of them.

    Args:
        folder: in which the launcher of a single machine may meet itself.

    Raises:
        ValueError: the number of machines or of this one is none.
        OSError: the name of the first machine is not known.
    """
    fewest, most = parse_min_max_nnodes(options.nnodes)
    if fewest != most or not 0 <= options.node_rank < most:
        raise ValueError(f'NNODES={options.nnodes} NODE_RANK={options.node_rank}: NNODES machines have the numbers '
                         'from 0 to NNODES - 1.')
    dynamic_rendezvous.DynamicRendezvousHandler, Meeting.machine = Meeting, options.node_rank
    first = options.node_rank == 0
    address = own_address(options.master_addr, options.master_port)
    options.rdzv_backend = 'c10d'
    options.rdzv_endpoint, where = f'{options.master_addr}:{options.master_port}', f'is_host={first}'
    if most == 1:  # no port, as what is met with is unpickled
        options.rdzv_endpoint, where = f'{folder}/meeting', 'store_type=file'
    options.rdzv_conf = ','.join(filter(None, [where, options.rdzv_conf]))
    options.local_addr = options.local_addr or (options.master_addr if first else address)  # for the other machines
    if interface := interface_of(address):
        os.environ.setdefault('GLOO_SOCKET_IFNAME', interface)  # else the host's name says where it listens
    os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'  # a restart needs a store without what the last one left


def own_address(host: str, port: int) -> str:
    """The address of this machine on the way to another one; nothing is sent."""
    try:
        family, _, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(there)
            return probe.getsockname()[0]
    except OSError as error:
        raise OSError(f'no way to MASTER_ADDR={host}: {error.strerror}.') from error


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, 0x8915, struct.pack('256s', name[:15].encode()))  # SIOCGIFADDR
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None


def reason(error: Exception, options: Namespace) -> str:
    """What a failed meeting means, and what to do."""
    again = 'run the same command again on every machine'
    machines = parse_min_max_nnodes(options.nnodes)[1]
    if isinstance(error, RendezvousTimeoutError):
        return (f'not all of the {machines} machines were there in time (WAIT=SECONDS allows more). To go on, '
                f'{again}.')
    if isinstance(error, RendezvousClosedError):
        return 'another machine has ended the run; its last words say why.'
    return (f'the first machine does not answer at {options.rdzv_endpoint}: it has ended, it was lost, or nothing '
            f'is let through. To go on, {again}.')


if __name__ == '__main__':
    logging.disable(logging.ERROR)  # of torch's launcher
    for name in QUIET:
        del os.environ[name]  # the processes speak
    options = parse_args(sys.argv[1:])
    os.environ.setdefault(tools.JOB_BEGAN, str(time.time()))  # what is saved later is its own
    if options.nproc_per_node.isdecimal():  # else torchrun warns, and gives each process one thread
        cores = len(os.sched_getaffinity(0)) // int(options.nproc_per_node)
        os.environ.setdefault('OMP_NUM_THREADS', str(max(1, cores)))
    launcher.api.LocalElasticAgent = Agent
    try:
        with tempfile.TemporaryDirectory(prefix='clip-rc-') as folder:
            if options.rdzv_backend == 'static' and not options.standalone:
                meet(options, folder)
            run(options)
    except ChildFailedError as error:
        for failure in error.failures.values():
            if failure.exitcode < 0:  # it could not say so itself
                print(f'error: {manner(failure)}.', file=sys.stderr)
        sys.exit(1)
    except SignalException as caught:
        tools.say_stopped()
        sys.exit(128 + caught.sigval)
    except (RendezvousError, DistError) as error:
        sys.exit(f'error: {reason(error, options)}')
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
