#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Run as root after the guest's init: network, sshd, a word to the host, then wait for the end.
# Under TCG a fork costs 10 ms and more, so loops use what bash has built in.
set -eu
shared=/run/lab
state=/run/lab-state

mounted=$(</proc/mounts)
mount_once() { # kind folder
    [[ ! -d $2 || $mounted == *" $2 $1 "* ]] || mount -t "$1" "$1" "$2" || :
}
mount_once debugfs /sys/kernel/debug
mount_once tracefs /sys/kernel/tracing
mount_once fusectl /sys/fs/fuse/connections

mkdir -p "$state" /run/sshd
mount -t tmpfs -o mode=0700,size=16m lab-state "$state"
mkfifo -m 0600 "$state/poweroff"
exec 9<>"$state/poweroff"

card=
for entry in /sys/class/net/*; do # the loopback and tunnels have no device behind them
    if [[ -e $entry/device ]]; then card=${entry##*/}; fi
done
[[ -n $card ]] || { echo "start.sh: no network card in /sys/class/net" >&2; exit 1; }
ip -batch - <<EOF
link set lo up
addr add 10.0.2.15/24 dev $card
link set $card up
EOF

# StrictModes would look at /run, which virtme-ng leaves open to all; our folder is 0700.
install -m 0600 "$shared/ssh/ssh_host_ed25519_key" "$shared/ssh/authorized_keys" "$state"
echo "# SPDX-License-Identifier: GPL-2.0-or-later
Port 22
AddressFamily inet
HostKey $state/ssh_host_ed25519_key
AuthorizedKeysFile $state/authorized_keys
PidFile $state/sshd.pid
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowUsers root
StrictModes no
UsePAM no
UseDNS no
X11Forwarding no
AllowAgentForwarding no
AllowTcpForwarding no
PermitTunnel no
PermitUserRC no
PrintMotd no
PrintLastLog no
MaxSessions 20
LoginGraceTime 0" >"$state/sshd_config"
# virtme-ng's init locks every account with a "!", and sshd without PAM refuses a locked one.
echo "root:*:1::::::" >"$state/shadow"
mount --bind "$state/shadow" /etc/shadow
# What it has to say goes to the console, which the host keeps.
/usr/sbin/sshd -E /dev/kmsg -f "$state/sshd_config"

for ((turn = 0; turn < 1200; turn++)); do
    [[ ! -s $state/sshd.pid ]] || break
    read -r -t 0.05 -u 9 || : # a sleep without a fork: nobody writes yet
done
[[ -s $state/sshd.pid ]] || { echo "start.sh: sshd did not start" >&2; exit 1; }

port=
for entry in /sys/class/virtio-ports/*; do # /dev/virtio-ports needs udev
    [[ -e $entry/name ]] || continue
    read -r name <"$entry/name" || :
    if [[ $name == lab.ready ]]; then port=/dev/${entry##*/}; fi
done
[[ -n $port ]] || { echo "start.sh: no virtio port lab.ready" >&2; exit 1; }
echo ready >"$port"

read -r -u 9 || :
exit 0
