package sandbox

import (
	"context"
	"net"
	"slices"
)

// Listen moves the World from memory to sockets on 127.0.0.1, with ports that the system chooses. Dial leads there from
// then on, and other programs can reach the servers under Address: their certificates hold 127.0.0.1 and localhost, too.
// Call it before the first connection.
func (w *World) Listen() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loopback = true
	w.ca.local = true
	for _, h := range w.hosts {
		for port, s := range h.services {
			if err := w.open(port, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// Address gives where a server listens after Listen, as 127.0.0.1:port. The argument is such as "api.example.test:443"; for
// a time server "ntp1.example.test:123". It is empty when there is none.
func (w *World) Address(of string) string {
	host, port, err := net.SplitHostPort(of)
	if err != nil {
		return ""
	}
	w.mu.Lock()
	h := w.hosts[host]
	w.mu.Unlock()
	if h == nil {
		return ""
	}
	for _, kind := range []string{"tcp/", "udp/"} {
		if s := h.service(kind + port); s != nil {
			return s.address
		}
	}
	return ""
}

// Names lists the hosts, sorted.
func (w *World) Names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// open starts a service on the loopback interface; w.mu is held.
func (w *World) open(port string, s *service) error {
	if port[:4] == "udp/" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.address = c.LocalAddr().String()
		w.closers = append(w.closers, c)
		w.running.Go(func() { w.servePacketConn(c, s) })
		return nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	w.closers = append(w.closers, l)
	w.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if !w.run(func() { w.handle(&served{Conn: c, service: s}) }) {
				_ = c.Close()
			}
		}
	})
	return nil
}

// servePackets answers the packets of one connection in memory.
func (w *World) servePackets(c *served) {
	buffer := make([]byte, 2048)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			return
		}
		if answer := c.service.packets(buffer[:n]); answer != nil {
			_, _ = c.Write(answer)
		}
	}
}

// servePacketConn answers the packets of a socket.
func (w *World) servePacketConn(c net.PacketConn, s *service) {
	buffer := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			return
		}
		if answer := s.packets(buffer[:n]); answer != nil {
			_, _ = c.WriteTo(answer, from)
		}
	}
}
