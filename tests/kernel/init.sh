#!/bin/busybox sh
# The machine's first and only service: run what is asked, then power off whatever came of it.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
. /environment
"$PLEXD_PYTHON" -S -B -m kernel.guest /dev/ttyS1
echo "guest: exit status $?"
/bin/busybox poweroff -f
