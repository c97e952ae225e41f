// Command authvigil keeps watch over API authentication: it asks as clients do, on a schedule, and says what is to blame
// when they are refused.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/wire"
)

// Exit codes, as INTERFACE and the plugin convention have them.
const (
	exitOK       = 0
	exitFound    = 1  // a problem was found
	exitUsage    = 2  // wrong usage or configuration
	exitUnknown  = 3  // of the plugin convention
	exitTryAgain = 75 // EX_TEMPFAIL: another daemon holds the state
	exitConfig   = 78 // EX_CONFIG: the unit does not restart on it
)

// An exit ends a command with a code; without an error nothing more is said.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

// An app is what all commands share.
type app struct {
	thorough       bool // ask whatever helps, once
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string

	configFile string
	output     string
	logLevel   string
	logFormat  string
	color      string
}

// commands is the table of commands.
var commands = []func(*app) *cobra.Command{
	runCommand, demoCommand, initCommand, onceCommand, checkCommand, diagnoseCommand, statusCommand, topCommand, explainCommand, replayCommand, inspectCommand, configCommand, reloadCommand, alertsCommand, versionCommand, manCommand,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once; what is on disk is whole at every moment
	code := execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ())
	stop()
	os.Exit(code)
}

// execute runs one command line and gives its exit code.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, environ: environ}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var e exit
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		if e.err != nil {
			fmt.Fprintln(stderr, e.err)
		}
		return e.code
	default:
		fmt.Fprintf(stderr, "%v\n  help: authvigil --help\n", err)
		return exitUsage
	}
}

// root is the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "authvigil",
		Short:         "authvigil keeps watch over API authentication and names what is to blame",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	f := root.PersistentFlags()
	f.StringVar(&a.configFile, "config.file", "/etc/authvigil/authvigil.toml", "configuration `file`; conf.d/*.toml beside it is read too")
	f.StringVar(&a.output, "output", "text", "form of the result: text, json or ndjson")
	f.StringVar(&a.logLevel, "log.level", "info", "debug, info, warn or error")
	f.StringVar(&a.logFormat, "log.format", "logfmt", "logfmt or json")
	f.StringVar(&a.color, "color", "auto", "auto, always or never; NO_COLOR is obeyed")
	for _, command := range commands {
		root.AddCommand(command(a))
	}
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.HasSubCommands() {
			group(c)
		}
	}
	return root
}

// group makes a command that only holds others show its help, and refuse words that are none of them.
func group(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		var names []string
		for _, one := range c.Commands() {
			names = append(names, one.Name())
		}
		return exit{exitUsage, fmt.Errorf("there is no %s %s; %s\n  help: %s --help", c.CommandPath(), args[0], agent.DidYouMean(args[0], names), c.CommandPath())}
	}
}

// checkOutput refuses forms that there are not.
func (a *app) checkOutput() error {
	if err := a.checkColor(); err != nil {
		return err
	}
	switch a.output {
	case "text", "json", "ndjson":
		return nil
	}
	return exit{exitUsage, fmt.Errorf("--output: %q is none of text, json, ndjson", a.output)}
}

// env is what the agent may touch on this machine.
func (a *app) env(log *slog.Logger) agent.Env {
	return agent.Env{Net: wire.System(), Host: probes.ThisHost(), Jitter: rand.Float64, Log: log, Thorough: a.thorough}
}

// load reads the configuration and builds all of it.
func (a *app) load(log *slog.Logger, observers ...agent.Observer) (*agent.Agent, *agent.Config, error) {
	c, wrong := agent.Load(a.configFile, a.environ)
	env, _ := withStore(a.env(log), c, ofIdentities)
	ag, err := agent.New(c, env, observers...)
	if err = agent.InOrder(errors.Join(wrong, err)); err != nil {
		return nil, c, err
	}
	return ag, c, nil
}

// version reads what the build says of itself.
func version() (version, revision, goVersion string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", "", ""
	}
	version, goVersion = info.Main.Version, info.GoVersion
	if version == "" || version == "(devel)" {
		version = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return version, revision, goVersion
}

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Show the version", Args: cobra.NoArgs, Example: "  authvigil version", RunE: func(*cobra.Command, []string) error {
		v, revision, goVersion := version()
		if err := a.checkOutput(); err != nil {
			return err
		}
		if a.output != "text" {
			return writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "version": v, "revision": revision, "go": goVersion})
		}
		fmt.Fprintln(a.stdout, strings.TrimSpace(fmt.Sprintf("authvigil %s %s %s", v, revision, goVersion)))
		return nil
	}}
}
