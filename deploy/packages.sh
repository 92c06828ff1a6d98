#!/bin/sh
# Installs the Debian packages for: venv, demo or test. Does nothing, not even a look at the package index, when they
# are there. No service is started or enabled on this machine by it: docker.io, etcd-server, bird2, frr and gobgpd
# would start theirs at once and at each boot.
set -eu

VENV="python3-venv gcc libc6-dev ca-certificates"
DEMO="$VENV etcd-server etcd-client iptables ipset nftables iproute2 conntrack docker.io tini busybox-static kmod procps iputils-ping"
TEST="$DEMO bird2 frr gobgpd user-mode-linux iperf3 tcpdump"

case "${1:-}" in
    venv) wanted=$VENV ;;
    demo) wanted=$DEMO ;;
    test) wanted=$TEST ;;
    *) echo "usage: $0 venv|demo|test" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "$0: this is not Debian; what it would install is taken to be there: $wanted" >&2
    exit 0
fi

present=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null | sed -n 's/ installed$//p')
missing=
for package in $wanted; do
    printf '%s\n' "$present" | grep -qx "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "$0: these packages are missing:$missing" >&2
    echo "run this again as root, or: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

POLICY=/usr/sbin/policy-rc.d
work=$(mktemp -d)
mine=

units() {
    for folder in /usr/lib/systemd/system /lib/systemd/system; do
        [ ! -d "$folder" ] || find "$folder/" -maxdepth 1 \( -name '*.service' -o -name '*.socket' -o -name '*.timer' \) -printf '%f\n'
    done | sort -u
}

init_scripts() {
    [ ! -d /etc/init.d ] || find /etc/init.d -maxdepth 1 -type f -printf '%f\n' | sort -u
}

# What was not here before stays off at the next boot too. Also after a failure: half an installation may have enabled it.
switch_off_new() {
    units >"$work/units.after"
    for unit in $(comm -13 "$work/units.before" "$work/units.after"); do
        case "$unit" in *@.*) continue ;; esac
        if command -v systemctl >/dev/null; then
            systemctl disable --quiet "$unit" >/dev/null 2>&1 || true
        elif command -v deb-systemd-helper >/dev/null; then
            deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
        fi
        # without systemctl some of the links stay (docker.socket, containerd.service, the alias etcd2.service)
        [ ! -d /etc/systemd/system ] || find /etc/systemd/system -type l -lname "*/systemd/system/$unit" -delete
    done
    init_scripts >"$work/init.after"
    for script in $(comm -13 "$work/init.before" "$work/init.after"); do
        update-rc.d "$script" disable >/dev/null 2>&1 || true
    done
}

finish() {
    status=$?
    trap - EXIT HUP INT TERM
    [ ! -f "$work/units.before" ] || [ ! -f "$work/init.before" ] || switch_off_new
    [ -z "$mine" ] || rm -f "$POLICY"
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

units >"$work/units.before"
init_scripts >"$work/init.before"
if [ ! -e "$POLICY" ]; then
    mine=yes
    printf '#!/bin/sh\n# put here by %s for the time of an installation: nothing may be started\nexit 101\n' "$0" >"$POLICY"
    chmod 755 "$POLICY"
fi

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q -o DPkg::Lock::Timeout=300
# --no-remove: a docker-ce that is here stays here; apt then says what is in its way
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 $missing
