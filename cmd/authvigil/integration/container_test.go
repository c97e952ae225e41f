//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A container is a Debian that systemd booted (systemd-nspawn), on a loopback of its own. What is written in it is gone
// with the test.
type container struct {
	t      *testing.T
	leader int // process id of its systemd, seen from outside
}

// boot starts a container from the tree that make integration made. Options go to systemd-nspawn.
func boot(t *testing.T, options ...string) *container {
	t.Helper()
	tree := os.Getenv("AUTHVIGIL_TREE")
	if tree == "" {
		t.Fatal("AUTHVIGIL_TREE names no Debian tree; run make integration")
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root can boot a container")
	}
	name := fmt.Sprintf("av-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	groups := controlGroups(t, name)
	join := ""
	for _, g := range groups {
		join += "echo $$ >" + g + "/cgroup.procs; "
	}
	args := []string{"-c", join + `exec "$@"`, "sh", need(t, "systemd-nspawn"), "--quiet", "--directory=" + tree, "--boot", "--volatile=overlay",
		"--register=no", "--keep-unit", "--machine=" + name, "--console=pipe", "--private-network",
		"--system-call-filter=adjtimex"} // which a container may not even read with, unless it is told so
	cmd := exec.Command("sh", append(args, options...)...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		for _, g := range groups {
			removeGroups(g)
		}
	})
	c := &container{t: t}
	for range 400 {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if first, _, _ := strings.Cut(strings.TrimSpace(string(children)), " "); first != "" {
			c.leader, _ = strconv.Atoi(first)
			switch out, _ := c.try("systemctl is-system-running"); strings.TrimSpace(out) {
			case "running", "degraded":
				return c
			}
		}
		select {
		case <-ended:
			t.Fatalf("the container ended:\n%s", said.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("the container did not come up in 20 s:\n%s", said.String())
	return nil
}

// controlGroups makes control groups for a container, one in each hierarchy that systemd uses.
func controlGroups(t *testing.T, name string) (list []string) {
	t.Helper()
	roots := []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		roots = []string{"/sys/fs/cgroup"}
	}
	for _, root := range roots {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		list = append(list, dir)
	}
	return list
}

func removeGroups(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeGroups(filepath.Join(dir, e.Name()))
		}
	}
	os.Remove(dir)
}

// of is the same container for a part of its test.
func (c *container) of(t *testing.T) *container { return &container{t, c.leader} }

// try runs a shell script inside.
func (c *container) try(script string) (string, error) {
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(c.leader), "-m", "-u", "-i", "-n", "-p", "--",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", "sh", "-ec", script).CombinedOutput()
	return string(out), err
}

// sh runs a shell script inside, which must succeed.
func (c *container) sh(script string) string {
	c.t.Helper()
	out, err := c.try(script)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s\n%s", script, err, out, c.journal())
	}
	return out
}

// journal is what the service and systemd said of it.
func (c *container) journal() string {
	out, _ := c.try("journalctl -b -o cat --no-pager -u authvigil | tail -60")
	return out
}

// write puts a file into the container.
func (c *container) write(path, text string) {
	c.t.Helper()
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(c.leader), "-m", "-p", "--", "sh", "-ec", `mkdir -p "$(dirname "$0")"; cat >"$0"`, path)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v %s", path, err, out)
	}
}

// get asks the listener inside with curl.
func (c *container) get(path string, args ...string) string {
	c.t.Helper()
	args = append([]string{"-t", strconv.Itoa(c.leader), "-n", "curl", "-sS", "--max-time", "10"}, args...)
	out, _ := exec.Command("nsenter", append(args, "http://127.0.0.1:10401"+path)...).CombinedOutput()
	return string(out)
}

// property is one of systemd's properties of the service.
func (c *container) property(name string) string {
	c.t.Helper()
	return strings.TrimSpace(c.sh("systemctl show --value -p " + name + " authvigil"))
}
