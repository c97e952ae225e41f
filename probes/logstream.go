package probes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A logStream is read between runs too, for what is not taken at once is lost: a socket, or a pipe.
type logStream struct {
	from  io.ReadCloser
	clean func() // after closing
	done  sync.WaitGroup
	err   error // why it ended; under the probe's mutex
}

// splitListen takes apart udp:address and unixgram:path.
func splitListen(listen string) (network, address string, err error) {
	network, address, _ = strings.Cut(listen, ":")
	switch {
	case network == "udp":
		if _, _, err := net.SplitHostPort(address); err != nil {
			return "", "", fmt.Errorf("%q: %w; write udp:127.0.0.1:5514", listen, err)
		}
	case network == "unixgram":
		if !strings.HasPrefix(address, "/") || len(address) > 107 {
			return "", "", fmt.Errorf("%q: the path of the socket must be absolute and at most 107 bytes", listen)
		}
	default:
		return "", "", fmt.Errorf("%q is neither udp:host:port nor unixgram:/path", listen)
	}
	return network, address, nil
}

// receive sees to it that the stream is open; its lines come by themselves.
func (p *accesslogProbe) receive() error {
	if p.stream != nil {
		if p.stream.err == nil {
			return nil
		}
		if errors.Is(p.stream.err, io.EOF) {
			return &evidence.Fault{Stage: evidence.StageLog, Symptom: evidence.SymptomSource, Err: fmt.Errorf("%s: the other side closed the pipe", p.Path)}
		}
		p.stream.close()
		p.stream = nil
	}
	var s *logStream
	var err error
	if p.Listen != "" {
		s, err = listenLog(p.Listen)
	} else {
		s, err = openPipe(p.Path)
	}
	if err != nil {
		return &evidence.Fault{Stage: evidence.StageLog, Symptom: evidence.SymptomSource, Err: err}
	}
	p.stream = s
	source, err := p.feed.newSource(s.from, 0)
	if err != nil {
		return err
	}
	s.done.Go(func() { p.take(s, source) })
	return nil
}

// take reads the stream until it is closed.
func (p *accesslogProbe) take(s *logStream, source *logSource) {
	buf := make([]byte, readAtOnce)
	datagrams := p.Listen != ""
	for {
		n, err := s.from.Read(buf)
		p.mu.Lock()
		if n > 0 {
			source.from = &chunk{b: buf[:n]}
			p.feed.pump([]*logSource{source}, func() bool { return false })
			if datagrams { // each is whole, whether or not it ends with a newline
				if source.finish(p.feed); source.ready {
					source.add(p.feed)
				}
			}
		}
		if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			s.err = err
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
}

// A chunk is a reader of bytes that are at hand.
type chunk struct{ b []byte }

func (c *chunk) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b)
	c.b = c.b[n:]
	return n, nil
}

func (s *logStream) close() {
	s.from.Close()
	s.done.Wait()
	if s.clean != nil {
		s.clean()
	}
}

// listenLog opens a socket for datagrams.
func listenLog(listen string) (*logStream, error) {
	network, address, err := splitListen(listen)
	if err != nil {
		return nil, err
	}
	if network == "unixgram" {
		if info, err := os.Lstat(address); err == nil {
			if info.Mode()&fs.ModeSocket == 0 {
				return nil, fmt.Errorf("%s is there and no socket", address)
			}
			if err := os.Remove(address); err != nil { // left over
				return nil, err
			}
		}
	}
	conn, err := net.ListenPacket(network, address)
	if err != nil {
		return nil, err
	}
	if c, ok := conn.(interface{ SetReadBuffer(int) error }); ok {
		_ = c.SetReadBuffer(8 << 20) // as much as the system allows
	}
	s := &logStream{from: datagrams{conn}}
	if network == "unixgram" {
		if err := os.Chmod(address, 0o666); err != nil { // whoever may enter the directory may write
			conn.Close()
			return nil, err
		}
		s.clean = func() { _ = os.Remove(address) }
	}
	return s, nil
}

type datagrams struct{ net.PacketConn }

func (d datagrams) Read(p []byte) (int, error) {
	n, _, err := d.ReadFrom(p)
	return n, err
}

// openPipe opens a named pipe, or standard input. A named pipe is opened for writing too, so that it does not end when a
// writer goes.
func openPipe(path string) (*logStream, error) {
	mode := os.O_RDWR
	if path == "-" {
		path, mode = "/dev/stdin", os.O_RDONLY
	}
	file, err := os.OpenFile(path, mode|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, explainOpen(path, err)
	}
	info, err := file.Stat()
	if err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 {
		err = fmt.Errorf("%s is no pipe; give the path of the file instead", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &logStream{from: file}, nil
}
