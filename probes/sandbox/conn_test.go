package sandbox

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// inBoth runs a test in a bubble and in real time.
func inBoth(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Run("real", f)
	t.Run("bubble", func(t *testing.T) { synctest.Test(t, f) })
}

func pair(t *testing.T, network string) (client, server *conn) {
	t.Helper()
	client, server = newConnPair(network, &net.TCPAddr{Port: 1}, &net.TCPAddr{Port: 2})
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestConn_carriesBothWays(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		client, server := pair(t, "tcp")
		sent := bytes.Repeat([]byte("0123456789abcdef"), 3*pipeBuffer/16) // more than is buffered
		go func() {
			_, _ = io.Copy(server, server) // echo
			_ = server.CloseWrite()
		}()
		go func() {
			if n, err := client.Write(sent); n != len(sent) || err != nil {
				t.Errorf("Write = %d, %v", n, err)
			}
			_ = client.CloseWrite()
		}()
		back, err := io.ReadAll(client)
		if err != nil || !bytes.Equal(back, sent) {
			t.Errorf("%d bytes came back of %d, error %v", len(back), len(sent), err)
		}
	})
}

func TestConn_closeLeavesWhatWasWritten(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		client, server := pair(t, "tcp")
		if _, err := client.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(server); string(b) != "last words" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		if _, err := server.Write([]byte("lost")); err != nil {
			t.Errorf("first Write to a closed end: %v", err)
		}
		if _, err := server.Write([]byte("too late")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Write to a closed end: %v, want EPIPE", err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read of a closed end: %v, want net.ErrClosed", err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write at a closed end: %v, want net.ErrClosed", err)
		}
		if err := client.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v, want net.ErrClosed", err)
		}
	})
}

func TestConn_closeWakesBlockedRead(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		client, _ := pair(t, "tcp")
		done := make(chan error)
		go func() {
			_, err := client.Read(make([]byte, 1))
			done <- err
		}()
		time.Sleep(5 * time.Millisecond)
		_ = client.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("blocked Read: %v, want net.ErrClosed", err)
		}
	})
}

func TestConn_halfCloseLeavesTheOtherHalf(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		client, server := pair(t, "tcp")
		_ = client.CloseWrite()
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read after the other end's CloseWrite: %v, want EOF", err)
		}
		if _, err := server.Write([]byte("still here")); err != nil {
			t.Error(err)
		}
		b := make([]byte, 10)
		if _, err := io.ReadFull(client, b); err != nil || string(b) != "still here" {
			t.Errorf("read %q, %v", b, err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Write after CloseWrite: %v, want EPIPE", err)
		}
	})
}

func TestConn_reset(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		client, server := pair(t, "tcp")
		_, _ = server.Write([]byte("lost"))
		server.reset()
		if _, err := client.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read after reset: %v, want ECONNRESET", err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write after reset: %v, want ECONNRESET", err)
		}
	})
}

func TestConn_deadlines(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		client, server := pair(t, "tcp")
		start := time.Now()
		_ = client.SetReadDeadline(start.Add(20 * time.Millisecond))
		_, err := client.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v, want a timeout", err)
		}
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
			t.Errorf("%v is no timeout for net.Error", err)
		}
		if took := time.Since(start); took < 20*time.Millisecond {
			t.Errorf("the deadline passed after %s", took)
		}

		// A deadline moved is a deadline forgotten: the read below would fail with the old one.
		_ = client.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_ = client.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(30 * time.Millisecond)
			_, _ = server.Write([]byte("x"))
		}()
		if _, err := client.Read(make([]byte, 1)); err != nil {
			t.Errorf("Read without deadline: %v", err)
		}

		// A deadline in the past wakes a read that is under way; net/http relies on it.
		woken := make(chan error)
		go func() {
			_, err := client.Read(make([]byte, 1))
			woken <- err
		}()
		time.Sleep(5 * time.Millisecond)
		_ = client.SetReadDeadline(time.Unix(1, 0))
		if err := <-woken; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("woken Read: %v", err)
		}

		_ = client.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := client.Write(make([]byte, 2*pipeBuffer))
		if n != pipeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write into a full pipe = %d, %v; want %d and a timeout", n, err, pipeBuffer)
		}
	})
}

func TestConn_packetsKeepTheirBorders(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		client, server := pair(t, "udp")
		for _, p := range []string{"one", "twenty", ""} {
			_, _ = client.Write([]byte(p))
		}
		b := make([]byte, 4)
		for _, want := range []string{"one", "twen", ""} { // what does not fit is lost
			if n, err := server.Read(b); err != nil || string(b[:n]) != want {
				t.Errorf("read %q, %v; want %q", b[:n], err, want)
			}
		}
		_ = server.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := server.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read of nothing: %v", err)
		}
		for range 2 * pipeBuffer / 1000 { // more than fits: dropped, not blocked
			if _, err := client.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A handshake in which both sides complain at once: over net.Pipe each would wait for the other to read.
func TestConn_failingHandshakeEnds(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		client, server := pair(t, "tcp")
		ca := newAuthority(time.Now())
		leaf := ca.issue("auth.example.test", Certificate{Chain: SelfSigned}, false)
		failed := make(chan error, 1)
		go func() {
			failed <- tls.Server(server, &tls.Config{Certificates: []tls.Certificate{leaf}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.roots()}).Handshake()
		}()
		err := tls.Client(client, &tls.Config{ServerName: "auth.example.test", RootCAs: ca.roots()}).Handshake()
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
			t.Errorf("client: %v, want a certificate error", err)
		}
		_ = client.Close()
		if err := <-failed; err == nil {
			t.Error("the server's handshake succeeded")
		}
	})
}
