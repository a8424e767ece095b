#!/bin/bash
# A SLURM controller and two made-up nodes of 8 GPUs each, on this machine, for tests/test_slurm.py. As root on Debian:
#   apt-get install --no-install-recommends slurm-wlm munge
#   tests/slurm_on_localhost.sh /tmp/slurm start      (or: stop)
#   pytest --run-slow tests/test_slurm.py
# It links its configuration into /etc/slurm, where jobs look for it; do not run it on a machine of a real cluster.
set -eu
folder=$1
export SLURM_CONF=$folder/slurm.conf
if [ "${2:-start}" = stop ]; then
    for name in slurmd-n1 slurmd-n2 ctld; do kill "$(cat "$folder/$name.pid")"; done
    exit
fi
mkdir -p "$folder/state" "$folder/log" /run/munge
chown munge: /run/munge
pidof munged > /dev/null || su -s /bin/sh munge -c /usr/sbin/munged
for gpu in 0 1 2 3 4 5 6 7; do [ -e "$folder/gpu$gpu" ] || mknod "$folder/gpu$gpu" c 1 3; done
cat > "$SLURM_CONF" << CONF
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/ctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/ctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=17001 CPUs=128 RealMemory=2000000 Gres=gpu:8
NodeName=n2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=17002 CPUs=128 RealMemory=2000000 Gres=gpu:8
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
printf 'NodeName=n%s Name=gpu File=%s/gpu[0-7]\n' 1 "$folder" 2 "$folder" > "$folder/gres.conf"
printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' > "$folder/cgroup.conf"
mkdir -p /etc/slurm
for name in slurm gres cgroup; do ln -sf "$folder/$name.conf" "/etc/slurm/$name.conf"; done
slurmctld -c -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N n1
slurmd -f "$SLURM_CONF" -N n2
sleep 5
sinfo -N -o "%N %T %c %m %G"
