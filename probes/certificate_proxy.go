package probes

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// maxHead bounds the head of a proxy's answer, in bytes.
const maxHead = 32 << 10

// parseProxy reads the URL of an HTTP proxy; none is nil.
func parseProxy(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" || u.User != nil {
		return nil, errors.New("want a URL such as http://proxy.example.com:3128")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "80")
	}
	return u, nil
}

// connectThrough asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6). The proxy's own refusal is told apart from
// anything about the server behind it.
func connectThrough(conn net.Conn, address string) error {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\n\r\n", address, address, userAgent); err != nil {
		return err
	}
	head, err := readHead(conn)
	if err != nil {
		return err
	}
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomProxy, Code: "http", Err: errors.New("the proxy does not answer in HTTP")}
	}
	defer r.Body.Close()
	if r.StatusCode/100 != 2 {
		return &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomProxy, Code: fmt.Sprint(r.StatusCode),
			Err: fmt.Errorf("the proxy answered %d %s to CONNECT", r.StatusCode, evidence.Clean(http.StatusText(r.StatusCode), 64))}
	}
	return nil
}

// readHead reads the head of an HTTP answer byte by byte, so that nothing of what follows is taken.
func readHead(conn net.Conn) (string, error) {
	var head strings.Builder
	one := make([]byte, 1)
	for head.Len() < maxHead {
		if _, err := conn.Read(one); err != nil {
			return "", err
		}
		head.WriteByte(one[0])
		if one[0] == '\n' && (strings.HasSuffix(head.String(), "\r\n\r\n") || strings.HasSuffix(head.String(), "\n\n")) {
			return head.String(), nil
		}
	}
	return "", &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomTooLarge, Code: "header", Err: errors.New("the proxy's answer has no end")}
}
