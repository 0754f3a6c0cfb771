#!/usr/bin/env python3
"""torchrun, for our scripts: `python tools/torchrun.py OPTIONS SCRIPT ARGUMENTS`; `tools/many_machines.md` tells of it.

What differs: the last words are the failed process's own, not the launcher's stack trace. With `--max_restarts N` only
what may go better next time is tried again, not what a process has put into words itself. Several machines keep the
order of `--node_rank`, and take one back that was lost; torchrun's own ways of meeting do the one or the other.
"""
import errno
import fcntl
import logging
import os
import pickle
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `tools`, whoever else has one
from tools.engine import errors

# isort: split
QUIET = {'TORCH_CPP_LOG_LEVEL': 'FATAL'} if 'TORCH_CPP_LOG_LEVEL' not in os.environ else {}
os.environ |= QUIET  # of the launcher itself, which torch's import reads: a lost connection is told in words below
from torch.distributed import DistError, PrefixStore, launcher
from torch.distributed.elastic.agent.server import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousError,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import create_backend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import (
    DynamicRendezvousHandler,
    RendezvousBackend,
    RendezvousTimeout,
)
from torch.distributed.run import parse_args, parse_min_max_nnodes, run

MACHINES = 'machines'  # our way of meeting, among torchrun's
UNANSWERED = 30  # seconds after which the first machine is given up; Linux would try for a quarter of an hour
PATIENCE = 30  # seconds between the SIGTERM and the SIGKILL of torch's launcher, after a failure
ENDING = 110  # the same when it was asked to end: for a step and a checkpoint; SLURM allows 120


class Meeting(DynamicRendezvousHandler):
    """torchrun's elastic meeting point of machines, which have the numbers that they were given."""

    machine: int  # which of them this is
    parameters: RendezvousParameters
    backend: RendezvousBackend

    @classmethod
    def join(cls, parameters: RendezvousParameters) -> 'Meeting':
        """Opens the meeting point on the first machine, or finds it from another one."""
        seconds = parameters.get_as_int('read_timeout', 60) + UNANSWERED
        unheard = threading.Timer(seconds, hang_up, [port_of(parameters)])  # torch waits forever for its answer
        unheard.daemon = True
        unheard.start()
        try:
            backend, store = create_backend(parameters)
        finally:
            unheard.cancel()
        seconds = parameters.get_as_int('join_timeout', 600)
        meeting = cls.from_backend(parameters.run_id, store, backend, parameters.min_nodes, parameters.max_nodes,
                                   parameters.local_addr, RendezvousTimeout(join=timedelta(seconds=seconds)))
        meeting.machine, meeting.parameters, meeting.backend = parameters.get_as_int('machine'), parameters, backend
        return meeting

    def get_backend(self) -> str:
        return MACHINES

    def next_rendezvous(self) -> RendezvousInfo:
        info = super().next_rendezvous()
        for connection in connections(port_of(self.parameters)):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNANSWERED)
        store = PrefixStore('numbered', info.store)
        if store.add(f'machine {self.machine}', 1) > 1:
            raise ValueError(f'two of the {info.world_size} machines have NODE_RANK={self.machine}: each needs its '
                             'own.')
        where = RendezvousStoreInfo.build(self.machine, store, local_addr=self.parameters.local_addr)
        return RendezvousInfo(info.store, self.machine, info.world_size, where)

    def lost(self) -> int:
        """How many of the machines that met have been silent for some 15 seconds."""
        state, _ = self.backend.get_state()
        participants = getattr(pickle.loads(state), 'participants', None)
        return 0 if participants is None else self.parameters.max_nodes - len(participants)


class Agent(LocalElasticAgent):
    """Starts and watches the processes of this machine; says what it does about one that ends too soon.

    A version of torch without these private names, or those that `Meeting.lost` reads, restarts in its own way.
    """

    def _shutdown(self, *asked_by, **options) -> None:
        """`asked_by` is a signal."""
        if asked_by and self._pcontext:
            close = self._pcontext.close
            self._pcontext.close = lambda death_sig=None, timeout=0: close(death_sig, max(timeout, ENDING))
        super()._shutdown(*asked_by, **options)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result, spec = super()._monitor_workers(worker_group), worker_group.spec
        left = getattr(self, '_remaining_restarts', None)
        if left is None:
            return result
        if result.is_failed():
            failures = list(result.failures.values())
            if any(map(said_why, failures)):
                self._remaining_restarts = 0
                return result
            why = '; '.join(map(manner, causes(failures))) or 'another machine has lost a process'
        elif result.state is WorkerState.HEALTHY and isinstance(spec.rdzv_handler, Meeting) \
                and spec.rdzv_handler.lost():
            why = 'a machine is silent'
            if not left:
                raise ConnectionError(f'{why}{used_up(spec.max_restarts)}.')
            result = RunResult(state=WorkerState.UNHEALTHY)
        else:
            return result
        if left:
            machines = worker_group.group_world_size
            print(f'{why}. Restart {spec.max_restarts - left + 1} of {spec.max_restarts}'
                  f'{f", as soon as all {machines} machines are there" if machines > 1 else ""}.', file=sys.stderr)
        return result


def said_why(failure: ProcessFailure) -> bool:
    """Whether the process itself ended with an error that a user can act on; `tools` reports all other exceptions."""
    return failure.exitcode in (1, 2) and not os.path.isfile(failure.error_file)


def causes(failures: list[ProcessFailure]) -> list[ProcessFailure]:
    """Those that others followed: not the processes that lost another one, nor those that the launcher then ended.

    Args:
        failures: of one attempt, in the order in which they were seen.
    """
    asked, began = (-signal.SIGTERM, 128 + signal.SIGTERM), min(failure.timestamp for failure in failures)
    own = [failure for place, failure in enumerate(failures)
           if failure.exitcode != os.EX_TEMPFAIL and not (place and failure.exitcode in asked)
           and not (failure.exitcode == -signal.SIGKILL and failure.timestamp >= began + PATIENCE)]
    return [failure for failure in own if failure.exitcode < 0] or own  # exceptions may come of lost connections


def manner(failure: ProcessFailure) -> str:
    how = f'was killed by {failure.signal_name()}' if failure.exitcode < 0 else 'ended with an exception' \
        if os.path.isfile(failure.error_file) else f'ended with status {failure.exitcode}'
    return f'process {failure.local_rank} {how}'


def used_up(restarts: int) -> str:
    return f'; all restarts ({restarts}) are used up' if restarts else ''


def port_of(parameters: RendezvousParameters) -> int:
    return int(parameters.endpoint.rpartition(':')[2])


def connections(port: int) -> Iterator[socket.socket]:
    """This process's connections to a port, or to its own one."""
    for number in os.listdir('/proc/self/fd') if sys.platform == 'linux' else []:
        with suppress(OSError):  # most are no sockets
            connection = socket.socket(fileno=int(number))
            try:
                if connection.family in (socket.AF_INET, socket.AF_INET6) \
                        and port in (connection.getsockname()[1], connection.getpeername()[1]):
                    yield connection
            finally:
                connection.detach()


def hang_up(port: int) -> None:
    """Ends the wait for an answer."""
    for connection in connections(port):
        connection.shutdown(socket.SHUT_RDWR)


def meet(options: Namespace, folder: str) -> None:
    """Completes torchrun's options: where and how this machine meets the others, as which of them.

    Args:
        folder: in which the launcher of a single machine may meet itself.

    Raises:
        ValueError: the number of machines or of this one is none.
        OSError: the name of the first machine is not known, or its port is another program's.
    """
    fewest, most = parse_min_max_nnodes(options.nnodes)
    if fewest != most or not 0 <= options.node_rank < most:
        raise ValueError(f'NNODES={options.nnodes} NODE_RANK={options.node_rank}: NNODES machines have the numbers '
                         'from 0 to NNODES - 1.')
    first = options.node_rank == 0
    options.master_port = options.master_port or 29500  # torch 2.15 has no default
    address = own_address(options.master_addr, options.master_port)
    if most == 1:  # no port, as what is met with is unpickled
        options.rdzv_backend, options.rdzv_endpoint, where = 'c10d', f'{folder}/meeting', 'store_type=file'
    else:
        if first:
            check_free(options.master_port)
        rendezvous_handler_registry.register(MACHINES, Meeting.join)
        options.rdzv_backend, options.rdzv_endpoint = MACHINES, f'{options.master_addr}:{options.master_port}'
        where = f'is_host={first},machine={options.node_rank}'
    options.rdzv_conf = ','.join(filter(None, [where, options.rdzv_conf]))
    options.local_addr = options.local_addr or (options.master_addr if first else address)  # for the other machines
    if interface := interface_of(address):
        os.environ.setdefault('GLOO_SOCKET_IFNAME', interface)  # else the host's name says where it listens
    os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'  # a restart needs a store without what the last one left


def check_free(port: int) -> None:
    """Raises OSError if this machine cannot listen at a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last run's connections are no matter
        try:
            probe.bind(('', port))
        except OSError as error:
            trouble = 'is in use' if error.errno == errno.EADDRINUSE else f'cannot be used ({error.strerror})'
            raise OSError(f'PORT={port} {trouble}: name another one on all machines.') from error


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
    return (f'the first machine does not answer at {options.rdzv_endpoint}: it has ended, it was lost, nothing is '
            f'let through, or another program has the port. To go on, {again}.')


if __name__ == '__main__':
    logging.disable(logging.ERROR)  # of torch's launcher
    for name in QUIET:
        del os.environ[name]  # the processes speak
    options = parse_args(sys.argv[1:])
    os.environ.setdefault(errors.JOB_BEGAN, str(time.time()))  # what is saved later is its own
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
        failures = list(error.failures.values())
        for failure in [] if any(map(said_why, failures)) else causes(failures):
            if failure.exitcode < 0 or options.max_restarts:  # else its own words are the last
                print(f'error: {manner(failure)}{used_up(options.max_restarts)}.', file=sys.stderr)
        sys.exit(1)
    except SignalException as caught:
        sys.stderr.write('stopped.\n')
        sys.exit(128 + caught.sigval)
    except (RendezvousError, DistError) as error:
        sys.exit(f'error: {reason(error, options)}')
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
