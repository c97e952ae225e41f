//go:build integration && machine

package integration

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// payload runs once in a whole machine (qemu, its processor emulated): what a container cannot show, because it has neither
// a clock nor limits of its own. ASK is the machine outside.
const payload = `
metric() { curl -sS --max-time 5 http://127.0.0.1:10401/metrics | sed -n "s/^$1 //p"; }
until_is() { for i in $(seq 90); do if [ "$(metric "$1")" = "$2" ]; then return 0; fi; sleep 1; done; echo "NOT REACHED: $1 is $(metric "$1"), want $2"; return 1; }
set +x
mkdir -p /etc/authvigil; cp authvigil.toml /etc/authvigil/
dpkg --force-confold -i authvigil.deb || exit 1
systemctl is-active authvigil
echo "memory.max $(cat /sys/fs/cgroup/system.slice/authvigil.service/memory.max)"
echo "SAID BY SYSTEMD: $(journalctl -b -o cat _PID=1 | grep -iE 'authvigil' | grep -iE 'unknown|ignor|bpf|not support' || echo nothing)"

# the clock: the machine came up 34 days ahead, and chrony sets it right; then somebody sets it by hand, and chrony again
echo "year at first $(date +%Y)"
chronyd -f /run/payload/chrony.conf
until_is authvigil_clock_steps_total 1
echo "year after chrony $(date +%Y)"
kill $(cat /run/chronyd-test.pid); sleep 2 # or it would set the clock back between two looks of authvigil
date -s '+2 hours' >/dev/null
until_is authvigil_clock_steps_total 2
date -s '-1 day' >/dev/null
until_is authvigil_clock_steps_total 3
rm -f /run/chronyd-test.pid; chronyd -f /run/payload/chrony.conf
until_is authvigil_clock_steps_total 4
before=$(metric 'authvigil_runs_total{probe="self",outcome="ok"}')
sleep 5
echo "runs in 5 s: $(( $(metric 'authvigil_runs_total{probe="self",outcome="ok"}') - before ))"
echo "failed runs: $(metric 'authvigil_runs_total{probe="self",outcome="fault"}') $(metric 'authvigil_runs_total{probe="minutely",outcome="fault"}')"
echo "distress $(metric 'authvigil_distress{what="clock"}')"
echo "alerts $(curl -sS http://127.0.0.1:10401/api/v1/alerts)"
echo "negative $(curl -sS http://127.0.0.1:10401/metrics | grep '^authvigil_.*_seconds.* -' | grep -vc '^authvigil_clock_')"

# memory: bombs, floods and endless answers under a limit of 128 MiB
mkdir -p /etc/systemd/system/authvigil.service.d
printf '[Service]\nMemoryMax=128M\nMemorySwapMax=0\nEnvironment=GOMEMLIMIT=100MiB\n' >/etc/systemd/system/authvigil.service.d/small.conf
cp bombs.toml /etc/authvigil/authvigil.toml
systemctl daemon-reload; systemctl restart authvigil
for i in $(seq 60); do n=$(curl -sS http://127.0.0.1:10401/metrics | grep '^authvigil_probe_duration_seconds{.*total' | wc -l); [ "$n" -ge 24 ] && break; sleep 1; done
sleep 10
echo "asked $n"
group=/sys/fs/cgroup/system.slice/authvigil.service
echo "peak $(cat $group/memory.peak) of $(cat $group/memory.max), killed $(sed -n 's/^oom_kill //p' $group/memory.events)"
echo "restarts $(systemctl show --value -p NRestarts authvigil) $(systemctl is-active authvigil)"
systemd-run --quiet --wait -p MemoryMax=50M -p MemorySwapMax=0 tail /dev/zero || echo "the limit kills who goes beyond it"
`

// TestMachine boots a whole machine, once: the clock set by a real chronyd and by hand, both seen and nobody paged; hostile
// servers under an enforced limit of memory; the unit with a firewall of its own.
func TestMachine(t *testing.T) {
	machine := os.Getenv("AUTHVIGIL_MACHINE")
	if machine == "" {
		t.Fatal("AUTHVIGIL_MACHINE names no directory with a machine; run make integration")
	}
	if runtime.GOARCH != "amd64" {
		t.Fatal("the machine is an amd64")
	}
	bombs := httptest.NewServer(http.HandlerFunc(bomb))
	defer bombs.Close()
	_, clock, _ := net.SplitHostPort(startChrony(t, 0))
	_, web, _ := net.SplitHostPort(strings.TrimPrefix(bombs.URL, "http://"))

	dir := t.TempDir()
	deb := filepath.Join(releasedHere(t, "1.0.0"), "authvigil_1.0.0-1_amd64.deb")
	run(t, "cp", deb, filepath.Join(dir, "authvigil.deb"))
	write(t, filepath.Join(dir, "run.sh"), payload)
	write(t, filepath.Join(dir, "chrony.conf"), "server 10.0.2.2 port "+clock+" iburst minpoll 0 maxpoll 0\nmakestep 1 -1\npidfile /run/chronyd-test.pid\n")
	write(t, filepath.Join(dir, "authvigil.toml"), selfProbe+"[probe.minutely]\nkind = \"http\"\nurl = \"http://127.0.0.1:10401/-/ready\"\nschedule = \"* * * * *\"\n")
	text := "[defaults]\nevery = \"2s\"\ntimeout = \"5s\"\n"
	for i := range 24 {
		text += fmt.Sprintf("[probe.b%d]\nkind = \"http\"\nurl = \"http://10.0.2.2:%s/%s/%d\"\n", i, web, []string{"gzip", "endless", "headers"}[i%3], i)
	}
	write(t, filepath.Join(dir, "bombs.toml"), text)
	disk := filepath.Join(t.TempDir(), "payload.tar")
	run(t, "tar", "-C", dir, "-cf", disk, ".")

	began := time.Now()
	cmd := exec.Command("timeout", "420", need(t, "qemu-system-x86_64"), "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1024", "-smp", "2", "-nographic", "-no-reboot",
		"-nic", "user,model=virtio-net-pci", "-rtc", "base="+time.Now().Add(34*24*time.Hour).UTC().Format("2006-01-02T15:04:05"),
		"-drive", "file="+filepath.Join(machine, "disk.img")+",if=virtio,format=raw,snapshot=on", "-drive", "file="+disk+",if=virtio,format=raw,readonly=on",
		"-kernel", filepath.Join(machine, "kernel"), "-initrd", filepath.Join(machine, "initrd"),
		"-append", "root=/dev/vda rw console=ttyS0 quiet loglevel=3 systemd.show_status=no systemd.mask=serial-getty@ttyS0.service")
	out, err := cmd.CombinedOutput()
	said := strings.ReplaceAll(string(out), "\r", "")
	t.Logf("the machine ran for %s", time.Since(began).Round(time.Second))
	if err != nil || !strings.Contains(said, "PAYLOAD ENDED 0") || strings.Contains(said, "NOT REACHED") {
		t.Fatalf("%v\n%s", err, said)
	}
	if len(regexp.MustCompile(`year at first (\d+)\n`).FindString(said)) == 0 {
		t.Error("the year at first is not said")
	}
	for _, want := range []string{"memory.max 1073741824", "SAID BY SYSTEMD: nothing", "failed runs: 0 0", "distress 1", `"alerts":[]`, "negative 0", "asked 24", "killed 0", "restarts 0 active", "the limit kills"} {
		if !strings.Contains(said, want) {
			t.Errorf("want %q in:\n%s", want, said)
		}
	}
	var runs, peak, limit int
	fmt.Sscanf(said[max(strings.Index(said, "runs in 5 s: "), 0):], "runs in 5 s: %d", &runs)
	fmt.Sscanf(said[max(strings.Index(said, "peak "), 0):], "peak %d of %d", &peak, &limit)
	if runs < 3 {
		t.Errorf("%d runs in five seconds after the clock was set back by a day", runs)
	}
	if peak == 0 || limit != 128<<20 || peak > limit {
		t.Errorf("memory: at most %d of %d bytes", peak, limit)
	}
	t.Logf("memory under hostile servers: at most %d MiB of 128 MiB", peak>>20)
}

// bomb answers as the worst of servers.
func bomb(w http.ResponseWriter, r *http.Request) {
	zeros := make([]byte, 64<<10)
	switch {
	case strings.HasPrefix(r.URL.Path, "/gzip/"):
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(gzipBomb())
	case strings.HasPrefix(r.URL.Path, "/headers/"):
		for i := range 300 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 64<<10))
		}
	default:
		for {
			if _, err := w.Write(zeros); err != nil {
				return
			}
		}
	}
}

// gzipBomb is a gibibyte of zeros, packed once.
var gzipBomb = sync.OnceValue(func() []byte {
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	zeros := make([]byte, 1<<20)
	for range 1024 {
		z.Write(zeros)
	}
	z.Close()
	return packed.Bytes()
})
