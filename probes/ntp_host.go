package probes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/facebook/time/ntp/chrony"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// Host is this machine, as far as it knows of its own clock. The zero value is not asked.
type Host struct {
	// Kernel reads what the kernel knows (adjtimex). It changes nothing.
	Kernel func() (Kernel, error)
	// Dial connects to chronyd's command port: over udp, or over unixgram to a path.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Kernel is what the kernel knows of its clock.
type Kernel struct {
	Synchronised bool
	Offset       time.Duration // that is still to be added to the clock
	MaxError     time.Duration
	Leap         int
}

const (
	chronyPatience = 500 * time.Millisecond
	chronyPort     = "127.0.0.1:323"
	chronySocket   = "/run/chrony/chronyd.sock"
	chronyItself   = 0x7f7f0101 // reference id of a chronyd that follows nobody (local)
	leapUnknown    = 3          // leap status of who is not synchronised
)

// ThisHost is the machine that the program runs on.
func ThisHost() Host { return Host{Kernel: readKernel, Dial: dialChrony} }

// askHost gives the voices of this machine. What is not there says nothing; what was asked for by name says why not.
func (p *ntpProbe) askHost(ctx context.Context) (voices []evidence.ClockSource) {
	if p.env.Host.Dial != nil && p.Chrony != "off" {
		if s := p.askChrony(ctx); s.State != "" {
			voices = append(voices, s)
		}
	}
	if p.env.Host.Kernel != nil {
		voices = append(voices, p.askKernel())
	}
	return voices
}

// askChrony asks chronyd over the port, and where that is closed over the socket.
func (p *ntpProbe) askChrony(ctx context.Context) evidence.ClockSource {
	ctx, cancel := context.WithTimeout(ctx, chronyPatience)
	defer cancel()
	switch where := p.Chrony; {
	case strings.HasPrefix(where, "/"):
		return p.chronyAt(ctx, "unixgram", where)
	case where != "" && where != "auto":
		return p.chronyAt(ctx, "udp", where)
	}
	byPort := p.chronyAt(ctx, "udp", chronyPort)
	if byPort.State != "unreachable" {
		return byPort
	}
	bySocket := p.chronyAt(ctx, "unixgram", chronySocket)
	if bySocket.Code == "absent" {
		return evidence.ClockSource{} // there is no chronyd here
	}
	return bySocket
}

// chronyAt asks chronyd for its tracking report, which any process may read.
func (p *ntpProbe) chronyAt(ctx context.Context, network, address string) evidence.ClockSource {
	s := evidence.ClockSource{Name: "chrony", State: "unreachable", Code: "timeout", Detail: "gave no answer at " + address}
	conn, err := p.env.Host.Dial(ctx, network, address)
	if err == nil {
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		began := time.Now()
		var reply chrony.ResponsePacket
		if reply, err = (&chrony.Client{Connection: conn}).Communicate(chrony.NewTrackingPacket()); err == nil {
			s.RTT = time.Since(began)
			return weighTracking(s, reply)
		}
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		s.Code, s.Detail = "permission_denied", "may not be asked at "+address+" by this user (it takes root or chrony's group)"
	case errors.Is(err, fs.ErrNotExist):
		s.Code, s.Detail = "absent", "is not there at "+address
	case errors.Is(err, syscall.ECONNREFUSED):
		s.Code, s.Detail = "refused", "takes no questions at "+address
	case ctx.Err() != nil:
	default:
		if f := wire.Classify(ctx, evidence.StageNTP, err); f.Symptom != evidence.SymptomTimeout {
			s.State, s.Code, s.Detail = "invalid", "malformed", "gave an answer at "+address+" that is not valid: "+f.Error()
		}
	}
	return s
}

// weighTracking makes a voice of what chronyd tells: what is left to correct is positive when the clock is slow. The bound is the one that chrony documents: root dispersion and half of
// the root delay around what is left to correct.
func weighTracking(s evidence.ClockSource, reply chrony.ResponsePacket) evidence.ClockSource {
	t, ok := reply.(*chrony.ReplyTracking)
	if !ok {
		s.State, s.Code, s.Detail = "invalid", "malformed", "answered another question"
		return s
	}
	s.Stratum = int(t.Stratum)
	skew, bound := -seconds(t.CurrentCorrection), seconds(t.RootDispersion+t.RootDelay/2)
	switch {
	case math.IsNaN(t.CurrentCorrection + t.RootDispersion + t.RootDelay), t.RootDelay < 0, t.RootDispersion < 0:
		s.State, s.Code, s.Detail = "invalid", "malformed", "tells numbers that cannot be"
	case t.LeapStatus == leapUnknown, t.RefID == 0, t.RefID == chronyItself, t.Stratum == 0:
		s.State, s.Code, s.Detail = "invalid", "unsynchronised", "says that it follows no source"
	case bound > maxRootDistance:
		s.State, s.Code, s.Detail = "invalid", "distance", fmt.Sprintf("is unsure by %s", bound.Round(time.Millisecond))
	default:
		s.State, s.Code, s.Detail, s.Measured = "truechimer", "", "", time.Now()
		s.Skew, s.Bound, s.RootDistance = skew, bound, bound
		s.Leap = map[uint16]int{1: 1, 2: -1}[t.LeapStatus]
	}
	return s
}

// seconds makes a duration of what may be any number.
func seconds(f float64) time.Duration {
	const most = float64(100 * 365 * 24 * time.Hour)
	return time.Duration(max(min(f*float64(time.Second), most), -most))
}

// askKernel makes a voice of what the kernel knows.
func (p *ntpProbe) askKernel() evidence.ClockSource {
	s := evidence.ClockSource{Name: "kernel", State: "unreachable", Code: "permission_denied", Detail: "may not be asked: the unit forbids it (ProtectClock=, or a filter of system calls)"}
	k, err := p.env.Host.Kernel()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return s
	case err != nil:
		s.Code, s.Detail = "unavailable", "cannot be asked: "+evidence.Clean(err.Error(), 96)
		return s
	}
	s.State, s.Bound, s.RootDistance, s.Leap = "invalid", k.MaxError, k.MaxError, k.Leap
	switch {
	case !k.Synchronised:
		s.Code, s.Detail = "unsynchronised", "says that nobody disciplines its clock"
	case k.MaxError > maxRootDistance:
		s.Code, s.Detail = "distance", fmt.Sprintf("is unsure by %s", k.MaxError.Round(time.Millisecond))
	default:
		s.State, s.Skew, s.Measured = "truechimer", -k.Offset, time.Now()
	}
	return s
}

// dialChrony connects to chronyd. Over its socket the answer needs an address to come back to: a socket of ours in the same
// directory, which goes with the connection.
func dialChrony(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if network != "unixgram" {
		return d.DialContext(ctx, network, address)
	}
	if _, err := os.Stat(address); err != nil {
		return nil, err
	}
	ours := filepath.Join(filepath.Dir(address), fmt.Sprintf("authvigil.%d.sock", os.Getpid()))
	replyTo.Lock()
	os.Remove(ours) // left by a process of this number that was killed
	d.LocalAddr = &net.UnixAddr{Name: ours, Net: network}
	conn, err := d.DialContext(ctx, network, address)
	if err == nil {
		err = os.Chmod(ours, 0o666) // chronyd answers as a user of its own
	}
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		os.Remove(ours)
		replyTo.Unlock()
		return nil, err
	}
	return &boundConn{Conn: conn, path: ours}, nil
}

// replyTo is held while a socket for answers exists: its name is that of the process.
var replyTo sync.Mutex

type boundConn struct {
	net.Conn
	path string
	once sync.Once
}

func (c *boundConn) Close() (err error) {
	c.once.Do(func() {
		err = c.Conn.Close()
		os.Remove(c.path)
		replyTo.Unlock()
	})
	return err
}
