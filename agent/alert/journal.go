package alert

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// journal writes alerts into the systemd journal over its native socket: one entry each, with fields to filter by.
// Priorities are 2 (critical) for what wakes somebody, 4 (warning) for the rest, 5 (notice) for an end.
type journal struct {
	Socket string        `koanf:"socket" help:"socket of the journal; default /run/systemd/journal/socket"`
	Repeat time.Duration `koanf:"repeat" help:"write what still fires again after this time; default: only the beginning and the end are written"`
}

func newJournal(decode func(any) error, _ Env) ([]*Receiver, error) {
	j := &journal{Socket: "/run/systemd/journal/socket"}
	if err := decode(j); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(j.Socket, "/") {
		return nil, errors.New("socket: want a path that begins with /")
	}
	return []*Receiver{{Sink: j, Name: "journal", News: true, Repeat: j.Repeat}}, nil
}

func (j *journal) Send(ctx context.Context, batch []Notice) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "unixgram", j.Socket) // this machine's, not the network under watch
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer c.Close()
	if until, ok := ctx.Deadline(); ok {
		_ = c.SetWriteDeadline(until) // a socket has one
	}
	for _, n := range batch {
		if _, err := c.Write(entryOf(n)); err != nil {
			return fmt.Errorf("journal: %w", err) // what went before is written twice: better than not at all
		}
	}
	return nil
}

// entryOf gives an alert in the native protocol. One datagram holds it: its texts are bounded.
func entryOf(n Notice) []byte {
	p := postedOf(n)
	state, priority := "firing", "4"
	switch {
	case n.Resolved:
		state, priority = "resolved", "5"
	case n.Severity == Critical:
		priority = "2"
	}
	var b bytes.Buffer
	field(&b, "MESSAGE", fmt.Sprintf("%s %s: %s", state, n.Name, p.Annotations["summary"]))
	field(&b, "PRIORITY", priority)
	field(&b, "SYSLOG_IDENTIFIER", "authvigil")
	field(&b, "AUTHVIGIL_STATE", state)
	field(&b, "AUTHVIGIL_STARTS_AT", p.StartsAt.Format(time.RFC3339))
	if n.Resolved {
		field(&b, "AUTHVIGIL_ENDS_AT", p.EndsAt.Format(time.RFC3339))
	}
	for _, m := range []map[string]string{p.Labels, p.Annotations} {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			field(&b, "AUTHVIGIL_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_")), m[name])
		}
	}
	return b.Bytes()
}

// field writes NAME=value, or the name, the length in 64 bits and the value where that has lines.
func field(b *bytes.Buffer, name, value string) {
	if len(name) > 64 { // the journal takes no longer ones
		return
	}
	if !strings.Contains(value, "\n") && utf8.ValidString(value) {
		b.WriteString(name + "=" + value + "\n")
		return
	}
	b.WriteString(name + "\n")
	_ = binary.Write(b, binary.LittleEndian, uint64(len(value))) // a buffer takes all
	b.WriteString(value + "\n")
}
