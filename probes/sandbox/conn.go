package sandbox

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is how many bytes lie between two ends before a writer waits: more than the longest TLS flight, so that two
// ends which both complain during a handshake do not wait for each other (net.Pipe does), and little enough that a body
// of a gigabyte costs nothing.
const pipeBuffer = 256 << 10

// A pipe carries bytes, or packets, one way. It blocks on a condition variable and on nothing else, which a bubble of
// testing/synctest takes for durably blocked.
type pipe struct {
	packets bool // keep the borders of writes; drop what does not fit

	mu     sync.Mutex
	change sync.Cond
	chunks [][]byte
	size   int
	ended  bool  // the writer has finished: what is there may be read, then EOF
	gone   error // the reader has gone: writes fail with it, all but
	grace  bool  // the first one, which is lost: a sender learns of it by the answer to what it sends, as over TCP
	broken error // reads fail with it at once
	read   limit
	write  limit
}

// A limit is a deadline of one side of a pipe.
type limit struct {
	timer  *time.Timer
	passed bool
}

func newPipe(packets bool) *pipe {
	p := &pipe{packets: packets}
	p.change.L = &p.mu
	return p
}

// set moves a deadline; the zero time takes it away.
func (p *pipe) set(l *limit, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.passed = false
	if !at.IsZero() {
		if wait := time.Until(at); wait <= 0 {
			l.passed = true
		} else {
			var own *time.Timer
			own = time.AfterFunc(wait, func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				if l.timer == own {
					l.passed = true
					p.change.Broadcast()
				}
			})
			l.timer = own
		}
	}
	p.change.Broadcast()
}

func (p *pipe) get(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.broken != nil:
			return 0, p.broken
		case p.read.passed:
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0 && !p.packets:
			return 0, nil
		case len(p.chunks) > 0:
			return p.take(b), nil
		case p.ended:
			return 0, io.EOF
		}
		p.change.Wait()
	}
}

// take moves what is there into b. A packet that does not fit is cut, as by recvfrom.
func (p *pipe) take(b []byte) (n int) {
	for n < len(b) && len(p.chunks) > 0 {
		first := p.chunks[0]
		m := copy(b[n:], first)
		n += m
		if m == len(first) || p.packets {
			p.size -= len(first)
			p.chunks = p.chunks[1:]
		} else {
			p.size -= m
			p.chunks[0] = first[m:]
		}
		if p.packets {
			break
		}
	}
	p.change.Broadcast()
	return n
}

func (p *pipe) put(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.write.passed:
			return n, os.ErrDeadlineExceeded
		case p.packets:
			if p.gone == nil && p.size+len(b) <= pipeBuffer {
				p.push(b)
			}
			return len(b), nil // a packet may be lost, and nobody is told
		case p.gone != nil && p.grace && !p.ended:
			p.grace = false
			return len(b), nil
		case p.gone != nil:
			return n, p.gone
		case p.ended:
			return n, syscall.EPIPE
		case n == len(b):
			return n, nil
		}
		if room := pipeBuffer - p.size; room > 0 {
			m := min(room, len(b)-n)
			p.push(b[n : n+m])
			n += m
			continue
		}
		p.change.Wait()
	}
}

func (p *pipe) push(b []byte) {
	p.chunks = append(p.chunks, append([]byte(nil), b...))
	p.size += len(b)
	p.change.Broadcast()
}

// end says that nothing more will be written.
func (p *pipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.change.Broadcast()
}

// leave says that nothing more will be read: writes fail with gone, reads with broken.
func (p *pipe) leave(gone, broken error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone == nil {
		p.gone, p.grace = gone, gone == syscall.EPIPE
	}
	if broken != nil && p.broken == nil {
		p.broken = broken
	}
	p.chunks, p.size = nil, 0
	p.change.Broadcast()
}

// A conn is one end of a buffered connection in memory. Its errors are those of a socket.
type conn struct {
	network       string
	in, out       *pipe
	local, remote net.Addr
	once          sync.Once
}

// newConnPair makes a connection of two ends, over tcp or udp.
func newConnPair(network string, clientAddr, serverAddr net.Addr) (client, server *conn) {
	packets := network == "udp"
	up, down := newPipe(packets), newPipe(packets)
	client = &conn{network: network, in: down, out: up, local: clientAddr, remote: serverAddr}
	server = &conn{network: network, in: up, out: down, local: serverAddr, remote: clientAddr}
	return client, server
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.get(b)
	return n, c.failed("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.out.put(b)
	return n, c.failed("write", err)
}

func (c *conn) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		err = os.NewSyscallError(op, err)
	}
	return &net.OpError{Op: op, Net: c.network, Source: c.local, Addr: c.remote, Err: err}
}

// Close ends both directions; what was written before can still be read by the other end.
func (c *conn) Close() error {
	err := c.failed("close", net.ErrClosed)
	c.once.Do(func() {
		err = nil
		c.shut(syscall.EPIPE)
		c.out.end()
	})
	return err
}

// shut makes every use of this end fail. What the other end writes fails with peer.
func (c *conn) shut(peer error) {
	c.in.leave(peer, net.ErrClosed)
	c.in.set(&c.in.read, time.Time{})
	c.out.set(&c.out.write, time.Time{})
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.gone, c.out.grace = net.ErrClosed, false
	c.out.change.Broadcast()
}

// reset ends the connection as a TCP reset does: the other end loses also what it has not read yet.
func (c *conn) reset() {
	c.once.Do(func() {
		c.out.leave(net.ErrClosed, syscall.ECONNRESET)
		c.shut(syscall.ECONNRESET)
	})
}

// CloseWrite ends the direction away from this end; the other one stays open.
func (c *conn) CloseWrite() error { c.out.end(); return nil }

// CloseRead ends the direction towards this end.
func (c *conn) CloseRead() error { c.in.leave(syscall.EPIPE, io.EOF); return nil }

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.in.set(&c.in.read, t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.set(&c.out.write, t); return nil }
