//go:build integration

package integration

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// bootWith boots a container with the packages of the versions at /dist/VERSION.deb, and the first of them installed.
func bootWith(t *testing.T, versions ...string) *container {
	t.Helper()
	var options []string
	for _, v := range versions {
		deb := filepath.Join(releasedHere(t, v), fmt.Sprintf("authvigil_%s-1_%s.deb", v, runtime.GOARCH))
		options = append(options, "--bind-ro="+deb+":/dist/"+v+".deb")
	}
	c := boot(t, options...)
	c.sh("dpkg -i /dist/" + versions[0] + ".deb")
	return c
}

// selfProbe asks the listener of the daemon itself each second.
const selfProbe = "[defaults]\nevery = \"1s\"\n[probe.self]\nkind = \"http\"\nurl = \"http://127.0.0.1:10401/-/healthy\"\n"

// TestBoot_unit is the unit under a real systemd of the oldest version that is supported: ready, within its sandbox,
// credentials, reload, watchdog, stop.
func TestBoot_unit(t *testing.T) {
	c := bootWith(t, "1.0.0")
	if state := c.property("ActiveState"); state != "active" { // Type=notify: it said READY
		t.Fatalf("after the installation it is %s\n%s", state, c.journal())
	}
	if out := c.sh("journalctl -b -o cat --no-pager _PID=1 | grep -i authvigil.service || true"); strings.Contains(strings.ToLower(out), "unknown") || strings.Contains(out, "ignoring") {
		t.Errorf("systemd does not understand the unit:\n%s", out)
	}
	if out := c.sh("systemd-analyze verify authvigil.service 2>&1"); out != "" {
		t.Errorf("verify: %s", out)
	}

	t.Run("sandbox", func(t *testing.T) {
		c := c.of(t)
		for _, want := range []string{"LimitCORE=0", "MemoryMax=1073741824", "NRestarts=0", "CapabilityBoundingSet="} {
			name, value, _ := strings.Cut(want, "=")
			if got := c.property(name); got != value {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
		}
		if got := c.property("Environment"); !strings.Contains(got, "GOMEMLIMIT=") {
			t.Errorf("no GOMEMLIMIT: %s", got)
		}
		// what a program may do in the same unit: the clock can be read by adjtimex, and nothing sets it
		c.write("/usr/local/bin/trial", `#!/usr/bin/perl
$b = "\0" x 256; $t = pack("qq", 1, 0);
printf "adjtimex %d\n", syscall(`+adjtimexNumber()+`, $b) >= 0;
printf "settime %d\n", syscall(`+settimeNumber()+`, 0, $t) >= 0;
printf "etc %d\n", open(F, ">", "/etc/x") ? 1 : 0;
printf "home %d\n", opendir(D, "/root") ? 1 : 0;
printf "uid0 %d\n", $< == 0;
`)
		c.write("/run/systemd/system/trial.service.d/trial.conf", "[Service]\nType=oneshot\nExecStart=\nExecStart=/usr/bin/perl /usr/local/bin/trial\nExecReload=\nWatchdogSec=0\nRestart=no\n")
		c.sh("cp /lib/systemd/system/authvigil.service /run/systemd/system/trial.service; systemctl daemon-reload; systemctl start trial")
		out := c.sh("journalctl -b -o cat --no-pager -u trial")
		for _, want := range []string{"adjtimex 1", "settime 0", "etc 0", "home 0", "uid0 0"} {
			if !strings.Contains(out, want) {
				t.Errorf("want %s in:\n%s", want, out)
			}
		}
	})

	t.Run("probes and credentials", func(t *testing.T) {
		c := c.of(t)
		hash := strings.TrimSpace(strings.TrimPrefix(run(t, "htpasswd", "-nbBC", "4", "x", "open-sesame-1"), "x:"))
		sealed := strings.TrimSpace(strings.TrimPrefix(run(t, "htpasswd", "-nbBC", "4", "x", "open-sesame-2"), "x:"))
		c.write("/etc/authvigil/web.yml", fmt.Sprintf("basic_auth_users:\n  plain: %s\n  sealed: %s\n", hash, sealed))
		c.write("/etc/default/authvigil", "ARGS=\"--web.config.file=/etc/authvigil/web.yml\"\n")
		c.write("/etc/authvigil/plain.secret", "open-sesame-1\n")
		c.sh(`chmod 600 /etc/authvigil/plain.secret; mkdir -p /etc/credstore.encrypted
			printf open-sesame-2 | systemd-creds encrypt --name=sealed - /etc/credstore.encrypted/sealed
			head -c 32 /dev/urandom | base64 | systemd-creds encrypt --name=authvigil.key - /etc/credstore.encrypted/authvigil.key`)
		c.write("/etc/systemd/system/authvigil.service.d/test.conf", `[Service]
LoadCredential=plain:/etc/authvigil/plain.secret
LoadCredentialEncrypted=sealed:/etc/credstore.encrypted/sealed
LoadCredentialEncrypted=authvigil.key:/etc/credstore.encrypted/authvigil.key
WatchdogSec=3s
RestartSec=1s
`)
		text := "[defaults]\nevery = \"1s\"\n"
		for _, name := range []string{"plain", "sealed"} {
			text += fmt.Sprintf("[identity.%[1]s]\nkind = \"basic\"\nusername = %[1]q\npassword = \"credential:%[1]s\"\n[probe.%[1]s]\nkind = \"http\"\nurl = \"http://127.0.0.1:10401/-/healthy\"\nidentity = %[1]q\n", name)
		}
		c.write("/etc/authvigil/authvigil.toml", text)
		c.sh("systemctl daemon-reload; systemctl restart authvigil")
		metrics := func() string { return c.get("/metrics", "-u", "plain:open-sesame-1") }
		eventually(t, 10*time.Second, "both probes succeed with what systemd handed over", func() bool {
			return successes(metrics()) == 2
		})
		if got := c.get("/metrics"); strings.Contains(got, "authvigil_") {
			t.Error("the listener answers without a password")
		}
		if out := c.sh("ls -ld /var/lib/private/authvigil /var/lib/private/authvigil/sealed"); strings.Count(out, "drwx------") != 2 {
			t.Errorf("others can look into the state: %s", out)
		}
		if out := c.sh("tr '\\0' ' ' </proc/$(systemctl show --value -p MainPID authvigil)/environ; tr '\\0' ' ' </proc/$(systemctl show --value -p MainPID authvigil)/cmdline") + c.journal() + metrics(); strings.Contains(out, "open-sesame") {
			t.Errorf("a secret is shown:\n%s", out)
		}

		// reload: what is the same goes on, what is new begins; a bad file is refused, with its text, and changes nothing
		pid, runs := c.property("MainPID"), value(metrics(), `authvigil_runs_total{probe="plain",outcome="ok"}`)
		c.write("/etc/authvigil/authvigil.toml", strings.Replace(text, "[probe.sealed]", "[probe.renamed]", 1))
		c.sh("systemctl reload authvigil")
		eventually(t, 5*time.Second, "the reload is taken over", func() bool {
			m := metrics()
			return strings.Contains(m, `probe="renamed"`) && !strings.Contains(m, `probe="sealed"`)
		})
		if now := value(metrics(), `authvigil_runs_total{probe="plain",outcome="ok"}`); now < runs || c.property("MainPID") != pid {
			t.Errorf("the probe that stays began anew: %v runs after %v", now, runs)
		}
		c.write("/etc/authvigil/authvigil.toml", strings.Replace(text, `kind = "http"`, `kind = "htp"`, 1))
		if out, err := c.try("systemctl reload authvigil"); err == nil {
			t.Errorf("the reload of a bad file succeeded: %s", out)
		}
		if journal := c.journal(); !strings.Contains(journal, "authvigil.toml:") || !strings.Contains(journal, "unknown kind") {
			t.Errorf("the journal does not say what is wrong:\n%s", journal)
		}
		if grave := c.sh("journalctl -b -o cat --no-pager -u authvigil -p err"); !strings.Contains(grave, "reload refused") || strings.Contains(grave, "level=INFO") {
			t.Errorf("by priority err and graver the journal has:\n%s", grave)
		}
		if c.property("MainPID") != pid || c.property("ActiveState") != "active" || !strings.Contains(metrics(), "authvigil_config_last_reload_successful 0") || !strings.Contains(c.property("StatusText"), "has errors") {
			t.Errorf("after the bad reload: pid %s, %s, status %q", c.property("MainPID"), c.property("ActiveState"), c.property("StatusText"))
		}
		c.write("/etc/authvigil/authvigil.toml", text)
		c.sh("systemctl reload authvigil")
	})

	t.Run("watchdog", func(t *testing.T) {
		c := c.of(t)
		pid := c.property("MainPID")
		time.Sleep(4 * time.Second) // longer than WatchdogSec=: it is fed
		if got := c.property("MainPID"); got != pid || c.property("NRestarts") != "0" {
			t.Errorf("a good daemon was restarted")
		}
		c.sh("kill -STOP " + pid)
		eventually(t, 15*time.Second, "a process that stands still is killed and started anew", func() bool {
			return c.property("NRestarts") == "1" && c.property("ActiveState") == "active" && c.property("MainPID") != pid
		})
		if journal := c.sh("journalctl -b -o cat --no-pager -u authvigil"); !strings.Contains(journal, "Watchdog timeout") || strings.Count(journal, "goroutine ") < 3 {
			t.Errorf("the journal lacks the goroutines of the process that stood still:\n%s", journal)
		}
		if out := c.sh("find / -xdev -name 'core*' -size +100k -not -path '/proc/*' -newer /etc/authvigil/web.yml 2>/dev/null || true"); out != "" {
			t.Errorf("a core file was left: %s", out)
		}
	})

	t.Run("stop while every probe hangs", func(t *testing.T) {
		c := c.of(t)
		c.sh(`setsid perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8099", Listen => 100) or die; sleep 600' >/dev/null 2>&1 &`)
		text := "[defaults]\nevery = \"1s\"\ntimeout = \"60s\"\n"
		for i := range 20 {
			text += fmt.Sprintf("[probe.h%d]\nkind = \"http\"\nurl = \"http://127.0.0.1:8099/%d\"\n", i, i)
		}
		c.write("/etc/authvigil/authvigil.toml", text)
		c.sh("systemctl restart authvigil; sleep 3")
		began := time.Now()
		c.sh("systemctl stop authvigil")
		if took := time.Since(began); took > 10*time.Second || c.property("Result") != "success" {
			t.Errorf("stop took %s, result %s", took, c.property("Result"))
		}
	})

	t.Run("network away and back", func(t *testing.T) {
		c := c.of(t)
		c.write("/etc/default/authvigil", "")
		c.write("/etc/authvigil/authvigil.toml", selfProbe+"timeout = \"1s\"\n")
		c.sh("systemctl start authvigil")
		eventually(t, 10*time.Second, "it succeeds", func() bool { return successes(c.get("/metrics")) == 1 })
		c.sh("ip link set lo down; sleep 2.5; ip link set lo up")
		eventually(t, time.Minute, "what failed meanwhile is well again", func() bool {
			m := c.get("/metrics")
			return value(m, `authvigil_runs_total{probe="self",outcome="ok"}`) > 0 && value(m, `authvigil_runs_total{probe="self",outcome="fault"}`)+value(m, `authvigil_runs_total{probe="self",outcome="unknown"}`) > 0 && successes(m) == 1
		})
	})

	t.Run("socket activation", func(t *testing.T) {
		c := c.of(t)
		c.sh(`systemctl stop authvigil; d=/usr/share/doc/authvigil/examples
			cp $d/authvigil.socket /etc/systemd/system/; cp $d/40-socket.conf /etc/systemd/system/authvigil.service.d/
			systemctl daemon-reload; systemctl start authvigil.socket authvigil`)
		if out := c.get("/-/ready"); !strings.Contains(out, "is ready") {
			t.Errorf("over the socket of systemd: %s\n%s", out, c.journal())
		}
		// the socket stays while the service starts anew: a scrape in between waits, and is not refused
		c.sh("systemctl restart --no-block authvigil")
		for range 20 {
			if out := c.get("/-/healthy"); !strings.Contains(out, "healthy") {
				t.Errorf("refused during a restart: %s", out)
			}
		}
	})
}

// TestBoot_packages installs, upgrades, removes and purges as an administrator does.
func TestBoot_packages(t *testing.T) {
	c := bootWith(t, "1.0.0", "1.1.0")
	c.write("/etc/authvigil/authvigil.toml", selfProbe+"[probe.dead]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\n")
	c.sh("systemctl restart authvigil")
	const open = `authvigil_gate_state{scope="endpoint",name="127.0.0.1:1/",state="open"}`
	eventually(t, 15*time.Second, "the gate before a dead endpoint opens", func() bool { return value(c.get("/metrics"), open) == 1 })
	if enabled := strings.TrimSpace(c.sh("systemctl is-enabled authvigil")); enabled != "enabled" {
		t.Errorf("it would not start with the machine: %s", enabled)
	}

	// an upgrade keeps the configuration and the state
	key := c.sh("sha256sum /var/lib/private/authvigil/sealed/key")
	pid := c.property("MainPID")
	out := c.sh("dpkg -i /dist/1.1.0.deb")
	if got := c.sh("dpkg-query -W -f '${Version}' authvigil"); got != "1.1.0-1" || c.property("ActiveState") != "active" || c.property("MainPID") == pid {
		t.Errorf("after the upgrade: version %s, %s\n%s", got, c.property("ActiveState"), out)
	}
	if c.sh("sha256sum /var/lib/private/authvigil/sealed/key") != key || !strings.Contains(c.sh("cat /etc/authvigil/authvigil.toml"), "probe.dead") {
		t.Error("the upgrade lost the key of the state, or the configuration")
	}
	eventually(t, 5*time.Second, "the gate is open as before the upgrade, and nothing was asked", func() bool {
		m := c.get("/metrics")
		return value(m, open) == 1 && value(m, `authvigil_runs_total{probe="dead",outcome="fault"}`) == 0
	})

	// a version that does not accept the configuration does not take the place of one that runs
	c.write("/etc/authvigil/authvigil.toml", "[probe.x]\nkind = \"htp\"\n")
	pid = c.property("MainPID")
	if out := c.sh("dpkg -i /dist/1.0.0.deb 2>&1"); !strings.Contains(out, "does not accept the configuration") || c.property("MainPID") != pid {
		t.Errorf("pid %s, before %s:\n%s", c.property("MainPID"), pid, out)
	}
	c.sh("systemctl restart authvigil || true; sleep 1")
	if state, restarts := c.property("ExecMainStatus"), c.property("NRestarts"); state != "78" || restarts != "0" {
		t.Errorf("a bad configuration at the start: status %s, %s restarts", state, restarts)
	}
	c.write("/etc/authvigil/authvigil.toml", selfProbe)
	c.sh("systemctl reset-failed authvigil; systemctl start authvigil")

	// removal keeps state and configuration, purge neither
	c.sh("dpkg -r authvigil")
	if out, _ := c.try("systemctl is-active authvigil"); strings.TrimSpace(out) == "active" {
		t.Error("it runs after its removal")
	}
	c.sh("test -d /var/lib/private/authvigil/sealed -a -f /etc/authvigil/authvigil.toml")
	c.sh("dpkg -P authvigil; test ! -e /var/lib/private/authvigil -a ! -e /var/lib/authvigil -a ! -e /etc/authvigil -a ! -e /usr/bin/authvigil")
	if failed := c.sh("systemctl --failed --no-legend --plain"); strings.Contains(failed, "authvigil") {
		t.Errorf("failed units are left: %s", failed)
	}
}

// releasedHere gives the packages of a version for this machine, and builds no others.
func releasedHere(t *testing.T, version string) string {
	t.Helper()
	releases.Lock()
	defer releases.Unlock()
	if dir := releases.dirs[version]; dir != "" {
		return dir
	}
	dir := t.TempDir()
	release(t, dir, "VERSION="+version, "ARCHES="+runtime.GOARCH)
	return dir
}

func adjtimexNumber() string {
	return map[string]string{"amd64": "159", "arm64": "171"}[runtime.GOARCH]
}

func settimeNumber() string { return map[string]string{"amd64": "227", "arm64": "112"}[runtime.GOARCH] }
