//go:build integration

package integration

import (
	"net"
	"testing"
)

// silent is a server that accepts and says nothing.
func silent(t *testing.T) string {
	return serve(t, func(c net.Conn) { c.Read(make([]byte, 1<<16)); c.Read(make([]byte, 1)) })
}

// speaks is a server that reads the request, says a text and closes.
func speaks(t *testing.T, text string) string {
	return serve(t, func(c net.Conn) { c.Read(make([]byte, 1<<16)); c.Write([]byte(text)) })
}

func serve(t *testing.T, each func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				each(c)
			}()
		}
	}()
	return l.Addr().String()
}
