package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/exporters"
)

// socketName is that of the unix socket of a running daemon. Who may open it may reload and look into the process; it lies
// in the runtime directory, which only the service and root can enter.
const socketName = "authvigil.sock"

// socketPath is where the socket lies: $RUNTIME_DIRECTORY as systemd sets it, or /run/authvigil.
func socketPath() string {
	if dir := os.Getenv("RUNTIME_DIRECTORY"); dir != "" {
		return filepath.Join(dir, socketName)
	}
	return filepath.Join("/run/authvigil", socketName)
}

// serveSocket serves the unix socket until ctx ends. A daemon without a place for it runs without.
func (d *service) serveSocket(ctx context.Context, path string) error {
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil //nolint:nilerr // no runtime directory, no socket
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.log.Warn("no control socket", "path", path, "error", err)
		return nil
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		d.log.Warn("no control socket", "path", path, "error", err)
		return nil
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		d.log.Warn("no control socket", "path", path, "error", err)
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		text, err := d.reloadText(r.URL.Query().Has("dry-run"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		fmt.Fprintln(w, text)
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/", d.page) // for status and top, where the page is not to be had
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		d.log.Warn("control socket", "error", err)
	}
	return nil
}

func reloadCommand(a *app) *cobra.Command {
	var dry bool
	var path string
	c := &cobra.Command{
		Use: "reload", Short: "Make the running daemon read its configuration again, and say what changed or why not", Args: cobra.NoArgs,
		Example: "  authvigil reload --dry-run",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}, DisableKeepAlives: true}}
			target := "http://daemon/reload"
			if dry {
				target += "?dry-run"
			}
			req, err := http.NewRequestWithContext(c.Context(), http.MethodPost, target, nil)
			if err != nil {
				return exit{exitFound, err}
			}
			r, err := client.Do(req)
			if err != nil {
				return exit{exitFound, fmt.Errorf("no daemon answers at %s\n  help: start it with authvigil run, name its socket with --socket, or send it SIGHUP", path)}
			}
			defer r.Body.Close()
			text, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
			if err != nil {
				return exit{exitFound, err}
			}
			if r.StatusCode != http.StatusOK {
				return exit{exitFound, errors.New(strings.TrimSpace(string(text)))}
			}
			if a.output != "text" {
				return writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "dry_run": dry, "changes": strings.TrimSpace(string(text))})
			}
			fmt.Fprint(a.stdout, string(text))
			return nil
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would change, and change nothing")
	c.Flags().StringVar(&path, "socket", socketPath(), "unix `socket` of the daemon")
	return c
}
