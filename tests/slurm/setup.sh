#!/usr/bin/env bash
# A SLURM of one machine, for tests: one node of two CPUs on 127.0.0.1, without systemd and without cgroups.
#
#     tests/slurm/setup.sh FOLDER         start it, or leave it as it runs; then: export SLURM_CONF=FOLDER/slurm.conf
#     tests/slurm/setup.sh FOLDER stop    end it
#
# Needs root, and Debian's slurm-wlm and munge. Keys, logs, sockets and state lie in FOLDER; ports are free ones, so
# that it stands beside any other SLURM of the machine.
set -euo pipefail

folder=$(mkdir -p "$1" && cd -- "$1" && pwd)
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin

running() { kill -0 "$(cat "$folder/$1.pid" 2> /dev/null)" 2> /dev/null; }

if [ "${2:-}" = stop ]; then
    for daemon in slurmctld slurmd munged; do
        if running $daemon; then kill "$(cat "$folder/$daemon.pid")"; fi
        for _ in {1..100}; do running $daemon || break; sleep 0.1; done
    done
    exit
fi

chmod 755 "$folder" # munged and slurmd refuse folders that others could write into
mkdir -p "$folder"/{state,spool}
if [ ! -e "$SLURM_CONF" ]; then
    (umask 077 && head -c 1024 /dev/urandom > "$folder/munge.key")
    read -r controller node < <(python3 -c '
import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
    cat > "$SLURM_CONF" << END
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$node
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0
MinJobAge=300
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
END
fi

running munged || munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
running slurmctld || slurmctld
if ! running slurmd; then
    # Versions that do not know "disabled" have a plugin that touches nothing until something asks it to.
    for plugin in disabled cgroup/v1; do
        echo "CgroupPlugin=$plugin" > "$folder/cgroup.conf"
        if slurmd -N localhost; then break; fi
    done
fi

for _ in {1..300}; do
    if [ "$(sinfo --noheader --format %t 2> /dev/null)" = idle ]; then exit; fi
    sleep 0.1
done
tail -n 5 "$folder"/*.log >&2
exit 1
