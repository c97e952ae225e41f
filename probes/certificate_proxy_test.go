package probes

import (
	"net"
	"strings"
	"testing"

	"github.com/authvigil/authvigil/probes/evidence"
)

func TestConnectThrough_boundsTheAnswer(t *testing.T) {
	c := &oneWay{from: strings.NewReader("HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxHead))}
	err := connectThrough(c, "a:1")
	if f := evidence.AsFault(err); f == nil || f.Symptom != evidence.SymptomTooLarge {
		t.Errorf("got %v", err)
	}
	if c.read > maxHead+1 {
		t.Errorf("read %d bytes", c.read)
	}
}

// oneWay is a connection whose other side has said all already.
type oneWay struct {
	net.Conn
	from *strings.Reader
	read int
}

func (o *oneWay) Read(b []byte) (int, error) {
	n, err := o.from.Read(b)
	o.read += n
	return n, err
}
func (o *oneWay) Write(b []byte) (int, error) { return len(b), nil }
