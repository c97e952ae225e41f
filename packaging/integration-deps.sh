#!/bin/sh
# integration-deps.sh DIR TREE [MACHINE]: installs by name what the integration tests need; oidc-provider, playwright-core,
# axe-core and Grafana's types go into DIR, a Debian that systemd-nspawn boots into TREE, the disk of a whole machine for qemu into MACHINE.
set -eu
dir=$1
tree=$2
machine=${3:-}
here=$(cd "$(dirname "$0")/.." && pwd)
missing=
for pair in prometheus:prometheus promtool:prometheus systemd-analyze:systemd prometheus-alertmanager:prometheus-alertmanager \
  chronyd:chrony nginx:nginx apache2:apache2 htpasswd:apache2-utils haproxy:haproxy openssl:openssl curl:curl node:nodejs npm:npm \
  systemd-nspawn:systemd-container mmdebstrap:mmdebstrap lintian:lintian rpm:rpm rpmlint:rpmlint man:man-db zsh:zsh fish:fish ip:iproute2 \
  exim4:exim4-daemon-light dovecot:dovecot-core slapd:slapd mariadbd:mariadb-server-core prosody:prosody vsftpd:vsftpd \
  strace:strace chromium:chromium tmux:tmux; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
if [ -n "$machine" ] && ! command -v qemu-system-x86_64 >/dev/null 2>&1; then missing="$missing qemu-system-x86 e2fsprogs"; fi
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing faketime"
[ -e /usr/lib/apache2/modules/mod_auth_openidc.so ] || missing="$missing libapache2-mod-auth-openidc"
[ -e /usr/lib/dovecot/imap ] && [ -e /usr/lib/dovecot/pop3 ] || missing="$missing dovecot-imapd dovecot-pop3d"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
if [ -n "$missing" ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -q
  if [ ! -e /usr/sbin/policy-rc.d ]; then # what is installed is started by tests, and by nothing else
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod 755 /usr/sbin/policy-rc.d
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  # shellcheck disable=SC2086
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends $missing
fi
mkdir -p "$dir"
if ! cmp -s "$here/cmd/authvigil/integration/testdata/package.json" "$dir/package.json" || [ ! -d "$dir/node_modules/oidc-provider" ] || [ ! -d "$dir/node_modules/@grafana/schema" ]; then
  cp "$here/cmd/authvigil/integration/testdata/package.json" "$dir/package.json"
  (cd "$dir" && npm install --no-audit --no-fund --loglevel=error)
fi
ntpsec=$(dirname "$dir")/ntpsec
if [ ! -x "$ntpsec/usr/sbin/ntpd" ]; then # unpacked and not installed: it excludes chrony
  (mkdir -p "$ntpsec" && cd "$ntpsec" && apt-get download -q ntpsec && dpkg-deb -x ntpsec_*.deb . && rm ntpsec_*.deb)
fi
if [ ! -x "$tree/lib/systemd/systemd" ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo rm -rf "$tree.new" && mkdir -p "$(dirname "$tree")"
  $sudo mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,libnss-systemd,ca-certificates,iproute2,procps bookworm "$tree.new"
  $sudo mv "$tree.new" "$tree"
fi
if [ -n "$machine" ] && [ ! -e "$machine/disk.img" ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  root="$machine/root"
  $sudo rm -rf "$machine" && mkdir -p "$machine"
  $sudo mmdebstrap --quiet --variant=minbase --architectures=amd64 bookworm "$root" \
    --include=systemd,systemd-sysv,dbus,libnss-systemd,linux-image-cloud-amd64,initramfs-tools,iproute2,procps,chrony,curl,ca-certificates
  # 10.0.2.15 is the address that qemu's user network gives away; the payload is a tar archive on the second disk
  printf '[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\n' | $sudo tee "$root/etc/systemd/network/10-user.network" >/dev/null
  $sudo tee "$root/etc/systemd/system/payload.service" >/dev/null <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=sh -c 'mkdir /run/payload && tar -xf /dev/vdb -C /run/payload && cd /run/payload && sh -x ./run.sh; echo "PAYLOAD ENDED $?"; systemctl poweroff --force'
UNIT
  wants="$root/etc/systemd/system/multi-user.target.wants"
  $sudo mkdir -p "$wants" "$root/etc/systemd/system/graphical.target.wants"
  $sudo ln -s ../payload.service "$root/etc/systemd/system/graphical.target.wants/"
  $sudo ln -sf /lib/systemd/system/systemd-networkd.service "$wants/"
  $sudo rm -f "$wants/chrony.service" # the test starts its own
  $sudo cp "$root"/boot/vmlinuz-* "$machine/kernel"
  $sudo cp "$root"/boot/initrd.img-* "$machine/initrd"
  $sudo mke2fs -q -t ext4 -d "$root" "$machine/disk.new" 1000M
  $sudo rm -rf "$root"
  $sudo chown "$(id -u)" "$machine/kernel" "$machine/initrd" "$machine/disk.new"
  mv "$machine/disk.new" "$machine/disk.img"
fi
