package evidence

import "strings"

// A Challenge is one scheme that a server offers (RFC 9110 section 11.3), with its parameters; names in small letters.
type Challenge struct {
	Scheme     string // in small letters
	Token      string // token68, in place of parameters
	Parameters map[string]string
}

// maxChallenges bounds how many challenges of one answer are read.
const maxChallenges = 16

// ParseChallenges reads the values of WWW-Authenticate or Proxy-Authenticate: several challenges may stand in one value,
// separated by the same comma that separates parameters. What does not follow the grammar is read as far as it goes.
func ParseChallenges(values ...string) (list []Challenge) {
	for _, value := range values {
		p := challengeParser{rest: value}
		for len(list) < maxChallenges {
			c, ok := p.challenge()
			if !ok {
				break
			}
			list = append(list, c)
		}
	}
	return list
}

type challengeParser struct{ rest string }

func (p *challengeParser) skip(set string) { p.rest = strings.TrimLeft(p.rest, set) }

func (p *challengeParser) word() string {
	end := strings.IndexAny(p.rest, " \t,=\"")
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	return w
}

func (p *challengeParser) challenge() (Challenge, bool) {
	p.skip(" \t,")
	if p.rest == "" {
		return Challenge{}, false
	}
	c := Challenge{Parameters: map[string]string{}}
	name := p.word()
	if strings.HasPrefix(p.rest, "=") { // parameters without a scheme
		p.rest = name + p.rest
	} else {
		c.Scheme = strings.ToLower(name)
	}
	if name == "" {
		p.rest = p.rest[min(1, len(p.rest)):]
		return p.challenge()
	}
	for range 64 {
		p.skip(" \t,")
		before := p.rest
		key := p.word()
		p.skip(" \t")
		if key == "" {
			if p.rest == "" {
				return c, true
			}
			p.rest = p.rest[1:]
			continue
		}
		if !strings.HasPrefix(p.rest, "=") {
			if c.Token == "" && len(c.Parameters) == 0 && (p.rest == "" || p.rest[0] == ',') && strings.HasPrefix(strings.TrimLeft(before, " "), key) && looksToken68(key) {
				c.Token = key
				continue
			}
			p.rest = before // the name of the next scheme
			return c, true
		}
		p.rest = p.rest[1:]
		if strings.HasPrefix(p.rest, "=") { // padding of a token68
			p.skip("=")
			c.Token = key
			continue
		}
		p.skip(" \t")
		if _, twice := c.Parameters[strings.ToLower(key)]; !twice {
			c.Parameters[strings.ToLower(key)] = p.value()
		} else {
			p.value()
		}
	}
	return c, true
}

// looksToken68 tells the data of Negotiate or NTLM from the name of another scheme.
func looksToken68(s string) bool { return len(s) > 12 }

func (p *challengeParser) value() string {
	if !strings.HasPrefix(p.rest, `"`) {
		end := strings.IndexByte(p.rest, ',')
		if end < 0 {
			end = len(p.rest)
		}
		v := p.rest[:end]
		p.rest = p.rest[end:]
		return Clean(strings.TrimSpace(v), 1024)
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case '\\':
			if i+1 < len(p.rest) {
				i++
				b.WriteByte(p.rest[i])
			}
		case '"':
			p.rest = p.rest[i+1:]
			return Clean(b.String(), 1024)
		default:
			b.WriteByte(c)
		}
	}
	p.rest = ""
	return Clean(b.String(), 1024)
}
