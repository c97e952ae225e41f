//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const repository = "../../.."

// TestUnit asks systemd whether the unit is right, alone and with each drop-in that this version knows, and how exposed it
// is: 1.3 at most, where 10 is everything.
func TestUnit(t *testing.T) {
	dir := t.TempDir()
	read := func(path string) string {
		b, err := os.ReadFile(filepath.Join(repository, "systemd", path))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(b), "/usr/bin/authvigil", binary(t))
	}
	unit, socket := filepath.Join(dir, "authvigil.service"), filepath.Join(dir, "authvigil.socket")
	write(t, unit, read("authvigil.service"))
	write(t, socket, read("authvigil.socket"))
	dropIn := filepath.Join(dir, "authvigil.service.d")
	if err := os.Mkdir(dropIn, 0o755); err != nil {
		t.Fatal(err)
	}
	analyze := need(t, "systemd-analyze")
	// 30-modern-systemd.conf is for versions after the oldest that is supported, and says so
	for _, with := range [][]string{nil, {"10-credentials.conf"}, {"20-access-logs.conf"}, {"40-socket.conf"}, {"10-credentials.conf", "20-access-logs.conf", "40-socket.conf"}} {
		for _, name := range with {
			write(t, filepath.Join(dropIn, name), read(filepath.Join("drop-ins", name)))
		}
		if out, err := exec.Command(analyze, "verify", unit, socket).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("verify with %v: %v\n%s", with, err, out)
		}
		for _, name := range with {
			os.Remove(filepath.Join(dropIn, name))
		}
	}
	if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=13", unit).CombinedOutput(); err != nil {
		t.Errorf("exposure above 1.3: %v\n%s", err, out[max(len(out)-200, 0):])
	}
}

// released builds the packages of a version once, and gives the directory.
func released(t *testing.T, version string) string {
	t.Helper()
	releases.Lock()
	defer releases.Unlock()
	if dir := releases.dirs[version]; dir != "" {
		return dir
	}
	dir, err := os.MkdirTemp("", "authvigil-release")
	if err != nil {
		t.Fatal(err)
	}
	release(t, dir, "VERSION="+version)
	releases.dirs[version] = dir
	return dir
}

var releases = struct {
	sync.Mutex
	dirs map[string]string
}{dirs: map[string]string{}}

func release(t *testing.T, dir string, env ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(repository, "packaging/release.sh"), dir)
	cmd.Env = append(os.Environ(), append([]string{"SOURCE_DATE_EPOCH=1767225600"}, env...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("release.sh: %v\n%s", err, out)
	}
}

func packages(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(released(t, "1.0.0"), pattern))
	if err != nil || len(list) != 2 {
		t.Fatalf("%s: got %v, want one for each architecture (%v)", pattern, list, err)
	}
	return list
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(need(t, name), args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestRelease_sameBytesTwice: what is built again from the same source, in another zone, umask and directory, is the same.
func TestRelease_sameBytesTwice(t *testing.T) {
	first := released(t, "1.0.0")
	second := t.TempDir()
	old := syscall.Umask(0o077)
	release(t, second, "VERSION=1.0.0", "TZ=Asia/Tokyo", "LANG=de_DE.UTF-8")
	syscall.Umask(old)
	a, _ := os.ReadFile(filepath.Join(first, "SHA256SUMS"))
	b, _ := os.ReadFile(filepath.Join(second, "SHA256SUMS"))
	if string(a) != string(b) || strings.Count(string(a), "\n") != 8 {
		t.Errorf("got\n%s\nand then\n%s", a, b)
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = first
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("checksums: %v\n%s", err, out)
	}
}

// TestPackages_lint: nothing that lintian and rpmlint say is left without a reason.
func TestPackages_lint(t *testing.T) {
	for _, deb := range packages(t, "*.deb") {
		if out := run(t, "lintian", "--allow-root", "--fail-on", "error,warning", deb); strings.TrimSpace(out) != "" {
			t.Errorf("lintian: %s", out)
		}
	}
	for _, rpm := range packages(t, "*.rpm") {
		if out := run(t, "rpmlint", "-c", filepath.Join(repository, "packaging/rpmlint.toml"), rpm); !strings.Contains(out, "0 errors, 0 warnings") {
			t.Errorf("rpmlint: %s", out)
		}
	}
}

// TestPackages_contents: the configuration is the administrator's, manual pages and completions are there and read well.
func TestPackages_contents(t *testing.T) {
	rpm := packages(t, "*.rpm")[1]
	for _, path := range []string{"/etc/authvigil/authvigil.toml", "/etc/default/authvigil"} {
		if out := run(t, "rpm", "-qp", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", rpm); !strings.Contains(out, path+" cn") {
			t.Errorf("rpm: %s is not config(noreplace):\n%s", path, out)
		}
	}
	tree := t.TempDir()
	run(t, "rpm", "--root", tree, "--initdb")
	run(t, "rpm", "--root", tree, "-i", "--nodeps", "--noscripts", "--ignorearch", rpm)
	if out := run(t, "rpm", "--root", tree, "-V", "authvigil"); out != "" {
		t.Errorf("rpm -V: %s", out)
	}
	deb := packages(t, "*.deb")[0]
	root := t.TempDir()
	run(t, "dpkg-deb", "-R", deb, root)
	if b, _ := os.ReadFile(filepath.Join(root, "DEBIAN/conffiles")); string(b) != "/etc/authvigil/authvigil.toml\n/etc/default/authvigil\n" {
		t.Errorf("conffiles: %q", b)
	}
	pages, _ := filepath.Glob(filepath.Join(root, "usr/share/man/man[15]/*.gz"))
	if len(pages) < 20 {
		t.Errorf("only %d manual pages", len(pages))
	}
	for _, page := range pages {
		cmd := exec.Command(need(t, "man"), "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page)
		cmd.Env = append(os.Environ(), "MANWIDTH=80", "LC_ALL=C.UTF-8")
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil || said.Len() > 0 {
			t.Errorf("%s: %v %s", page, err, said.String())
		}
	}
	run(t, "bash", "-n", filepath.Join(root, "usr/share/bash-completion/completions/authvigil"))
	run(t, "zsh", "-n", filepath.Join(root, "usr/share/zsh/vendor-completions/_authvigil"))
	run(t, "fish", "-n", filepath.Join(root, "usr/share/fish/vendor_completions.d/authvigil.fish"))
	run(t, filepath.Join(root, "usr/bin/authvigil"), "config", "check", "--config.file", filepath.Join(root, "etc/authvigil/authvigil.toml"))
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		run(t, "sh", "-n", filepath.Join(root, "DEBIAN", script))
	}
}

// TestSBOM: every module that is linked stands in the bill of materials, with the version that is linked.
func TestSBOM(t *testing.T) {
	for _, path := range packages(t, "*.cdx.json") {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var bom struct {
			BOMFormat, SpecVersion string
			Metadata               struct {
				Component struct{ Name, Version string }
			}
			Components []struct{ Name, Version, PURL string }
		}
		if err := json.Unmarshal(b, &bom); err != nil || bom.BOMFormat != "CycloneDX" || bom.Metadata.Component.Version != "1.0.0" {
			t.Errorf("%s: %v %+v", path, err, bom.Metadata)
		}
		listed := map[string]bool{}
		for _, c := range bom.Components {
			if c.PURL != "pkg:golang/"+c.Name+"@"+c.Version {
				t.Errorf("purl %q of %s %s", c.PURL, c.Name, c.Version)
			}
			listed[c.Name+" "+c.Version] = true
		}
		n := 0
		for line := range strings.Lines(run(t, "go", "version", "-m", binary(t))) {
			if words := strings.Fields(line); len(words) > 2 && words[0] == "dep" {
				if n++; !listed[words[1]+" "+words[2]] {
					t.Errorf("%s lacks %s %s", filepath.Base(path), words[1], words[2])
				}
			}
		}
		if n < 10 {
			t.Errorf("only %d modules were compared", n)
		}
	}
}

// TestDockerfile: no engine is needed to see that the image works. Its last stage is assembled by its own lines and run as
// it says, with that tree as root and its user.
func TestDockerfile(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(repository, "packaging/Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	_, stage, ok := strings.Cut(string(b), "\nFROM scratch\n")
	if !ok {
		t.Fatal("the last stage is not made of scratch")
	}
	root, user, entry, command := t.TempDir(), "", []string{}, []string{}
	os.Chmod(root, 0o755)
	for line := range strings.Lines(stage) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "COPY":
			rest = strings.TrimPrefix(rest, "--from=build ")
			from, to, _ := strings.Cut(rest, " ")
			switch from {
			case "/authvigil":
				from = binary(t)
			case "/etc/ssl/certs/ca-certificates.crt":
			default:
				from = filepath.Join(repository, from)
			}
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(to)), 0o755); err != nil {
				t.Fatal(err)
			}
			run(t, "cp", from, filepath.Join(root, to))
		case "USER":
			user = rest
		case "ENTRYPOINT":
			err = json.Unmarshal([]byte(rest), &entry)
		case "CMD":
			err = json.Unmarshal([]byte(rest), &command)
		case "EXPOSE", "#", "":
		default:
			t.Errorf("a line that this test does not know: %s", line)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user) || len(entry) == 0 {
		t.Fatalf("USER %q, ENTRYPOINT %q", user, entry)
	}
	var uid, gid uint32
	fmt.Sscanf(user, "%d:%d", &uid, &gid)
	n := port(t)
	i := slices.Index(command, ":10401")
	if i < 0 {
		t.Fatalf("CMD %q does not listen on :10401", command)
	}
	command[i] = fmt.Sprintf("127.0.0.1:%d", n)
	cmd := exec.Command(entry[0], append(entry[1:], command...)...)
	cmd.Env, cmd.Dir = []string{"PATH=/"}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- cmd.Wait() }()
	defer cmd.Process.Kill()
	reachable(t, n)
	if code, body := get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", n)); code != 200 || !strings.Contains(body, "authvigil_build_info") {
		t.Errorf("metrics: %d %.200s", code, body)
	}
	if status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)); !strings.Contains(string(status), fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", uid, uid, uid, uid)) {
		t.Errorf("it runs as somebody else:\n%s", status)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-stopped:
		if err != nil {
			t.Errorf("stop: %v\n%s", err, log.String())
		}
	case <-time.After(10 * time.Second):
		t.Error("it did not stop")
	}
}
