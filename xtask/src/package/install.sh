# Installs, upgrades, removes and purges the package on a copy of this machine, in mount and
# network namespaces of its own, while a filter is in force there.
#
#     install.sh PACKAGE NEWER FOLDER
#
# NEWER is the same with a higher version and another nodewall.yaml. FOLDER takes what is
# written; it is a tmpfs in these namespaces alone.
set -euo pipefail
package=$1 newer=$2 folder=$3

say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*"; exit 1; }
program() { ip -o link show dev node0 | grep -o 'prog/xdp id [0-9]*' || say none; }

mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
root=$folder/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t bpf bpf "$root/sys/fs/bpf"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
cp "$package" "$root/tmp/package.deb"
cp "$newer" "$root/tmp/newer.deb"
ip link set lo up
ip link add peer0 type veth peer name node0
ip link set peer0 up
ip link set node0 up
in_root() { chroot "$root" env DEBIAN_FRONTEND=noninteractive "$@"; }
# What this machine has of it is not what is tried.
if in_root dpkg -s nodewall >/dev/null 2>&1; then in_root dpkg -P nodewall; fi
rm -rf "$root/etc/nodewall" "$root/var/lib/nodewall"
# The index of all manual pages of this machine takes longer than all else, each time.
rm -f "$root/var/lib/man-db/auto-update"

say '== installed'
in_root dpkg -i /tmp/package.deb
while read -r mode file; do
  is=$(stat -c '%a %U:%G' "$root$file") || fail "$file is not there"
  [ "$is" = "$mode root:root" ] || fail "$file is $is, not $mode"
done <<'FILES'
755 /usr/sbin/nodewall
644 /lib/systemd/system/nodewall.service
755 /etc/nodewall
644 /etc/nodewall/nodewall.yaml
755 /etc/nodewall/policies.d
644 /usr/share/man/man8/nodewall.8.gz
644 /usr/share/man/man8/nodewall-apply.8.gz
644 /usr/share/bash-completion/completions/nodewall
644 /usr/share/zsh/vendor-completions/_nodewall
644 /usr/share/fish/vendor_completions.d/nodewall.fish
644 /usr/share/doc/nodewall/copyright
644 /usr/share/doc/nodewall/changelog.gz
644 /usr/share/doc/nodewall/examples/worker-node/host-endpoint.yaml
644 /usr/share/nodewall/prometheus/alerts.rules.yaml
644 /usr/share/nodewall/grafana/nodewall.json
644 /usr/share/nodewall/kubernetes/base/daemonset.yaml
644 /usr/share/nodewall/helm/nodewall/Chart.yaml
FILES
in_root nodewall --version
bash -n "$root/usr/share/bash-completion/completions/nodewall"
in_root man --warnings -l /usr/share/man/man8/nodewall-run.8.gz | grep -q 'take-over' || fail 'no manual'
in_root dpkg -V nodewall || fail 'files are not as packed'
# What is commented out must be right as well, and the rest do nothing.
in_root nodewall validate -f /usr/share/doc/nodewall/examples/deny-kube-node-port-services.yaml
sed 's/^#\([a-z-]*:\)/\1/' "$root/etc/nodewall/nodewall.yaml" > "$root/tmp/all.yaml"
grep -q '^interface:' "$root/tmp/all.yaml" || fail 'no example of an interface'
in_root nodewall --config /tmp/all.yaml schema >/dev/null

say '== upgraded, while it filters'
echo 'interface: [node0]' >> "$root/etc/nodewall/nodewall.yaml"
in_root nodewall apply -f /usr/share/doc/nodewall/examples/deny-kube-node-port-services.yaml \
  --label ibm.role=worker_public
before=$(program)
[ "$before" != none ] || fail 'nothing is attached'
in_root dpkg --force-confdef --force-confold -i /tmp/newer.deb
[ "$(program)" = "$before" ] || fail "the upgrade changed the filter: $(program)"
grep -q 'node0' "$root/etc/nodewall/nodewall.yaml" || fail 'the changed conffile is lost'
[ -e "$root/etc/nodewall/nodewall.yaml.dpkg-dist" ] || fail 'the new conffile is not shown'

say '== removed'
in_root dpkg -r nodewall 2>&1 | tee "$folder/said"
grep -q 'stay in force' "$folder/said" || fail 'nobody says that the filters stay'
[ "$(program)" = "$before" ] || fail "the removal changed the filter: $(program)"
[ ! -e "$root/usr/sbin/nodewall" ] || fail 'the program is still there'
grep -q 'node0' "$root/etc/nodewall/nodewall.yaml" || fail 'the removal took the configuration'

say '== purged, and detached where that is asked for'
in_root dpkg -i /tmp/newer.deb
mkdir -p "$root/var/lib/nodewall"
[ "$(program)" = "$before" ] || fail "the installation changed the filter: $(program)"
in_root env NODEWALL_DETACH=yes dpkg -P nodewall
[ "$(program)" = none ] || fail 'the filter is still there'
for gone in /etc/nodewall /var/lib/nodewall /sys/fs/bpf/nodewall; do
  [ ! -e "$root$gone" ] || fail "$gone is still there"
done
say '== done'
