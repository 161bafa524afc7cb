#!/bin/busybox sh
# The machine's only service: run the guest, then power off whatever its result is.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
. /environment
"$PLEXD_PYTHON" -S -B -m kernel.guest /dev/ttyS1
echo "guest: exit status $?"
/bin/busybox poweroff -f
