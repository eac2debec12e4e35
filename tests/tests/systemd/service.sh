# What is tried of the service, on a machine that has nothing else. `== …` begins a section,
# which ../systemd.rs looks at.
program() { nodewall status -o json | grep -m1 -oE '.program_id.: ?[0-9]+'; }
pid() { systemctl show -p MainPID --value nodewall; }
until_generation() { for _ in $(seq 100); do
  nodewall status | grep -qE ' +native +'$1' ' && return; sleep 0.1; done; }
systemctl start nodewall
echo '== started'; systemctl is-active nodewall; systemctl show -p StatusText --value nodewall
nodewall status; nodewall stats >/dev/null && echo stats
echo '== capabilities'; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/$(pid)/status
echo '== threads'; grep -h CapPrm /proc/$(pid)/task/*/status | sort -u
echo '== sandbox'; P=$(pid); in_it() { nsenter --target $P --mount -- sh -c "$1" 2>&1; }
in_it 'touch /etc/x'; in_it 'touch /sys/fs/cgroup/x'; in_it 'echo 1 > /proc/sys/net/ipv4/ip_forward'
in_it 'ls /home /root'
in_it 'mkdir /sys/fs/bpf/x && rmdir /sys/fs/bpf/x && echo bpffs is writable'
echo '== changed'; sed -i s/9001/9002/ /etc/nodewall/policies.d/one.yaml; until_generation 2
nodewall status | head -2
echo '== applied'; sed s/9002/9003/ /etc/nodewall/policies.d/one.yaml > /tmp/one.yaml
nodewall apply -f /tmp/one.yaml; echo code $?
echo '== restarted'; before=$(program); systemctl restart nodewall; systemctl is-active nodewall
until_generation 4; nodewall status | head -2
echo '== stopped'; before=$(program); systemctl stop nodewall; systemctl is-active nodewall
[ "$(program)" = "$before" ] && echo filters on
echo '== hung'; systemctl start nodewall; old=$(pid); kill -STOP $old
for _ in $(seq 150); do [ "$(pid)" != $old -a "$(pid)" != 0 ] && break; sleep 0.1; done
sleep 0.5; systemctl is-active nodewall; [ "$(pid)" != $old ] && echo another process
[ "$(program)" = "$before" ] && echo filters on
echo '== log'; cat /nodewall.log
