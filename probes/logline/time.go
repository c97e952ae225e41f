package logline

import (
	"bytes"
	"strconv"
	"time"
)

// timeReader reads the times of a log. Lines of one second follow each other, and those of a day: what was read before is
// used again.
type timeReader struct {
	last   [40]byte // text that was read last
	length int
	at     time.Time

	day  [17]byte // of a local time: day and zone
	from int64    // Unix second at which that day begins
}

// parse reads the forms that servers write: 02/Jan/2006:15:04:05 -0700 with or without a fraction, RFC 3339, seconds or
// milliseconds since 1970 with or without a fraction, 2006-01-02 15:04:05 in UTC.
func (c *timeReader) parse(b []byte) (time.Time, bool) {
	b = bytes.Trim(b, "[]")
	if len(b) == 0 || len(b) > len(c.last) {
		return time.Time{}, false
	}
	if len(b) == c.length && bytes.Equal(b, c.last[:c.length]) {
		return c.at, true
	}
	at, ok := c.fresh(b)
	if !ok || at.Year() < 1990 || at.Year() > 2100 {
		return time.Time{}, false
	}
	c.length, c.at = copy(c.last[:], b), at
	return at, true
}

func (c *timeReader) fresh(b []byte) (time.Time, bool) {
	switch {
	case len(b) >= 20 && b[2] == '/' && b[6] == '/' && b[11] == ':':
		return c.local(b)
	case len(b) >= 19 && b[4] == '-' && b[7] == '-' && (b[10] == 'T' || b[10] == 't' || b[10] == ' '):
		return iso(b)
	}
	return epoch(b)
}

// local reads 02/Jan/2006:15:04:05 -0700; haproxy writes a fraction and no zone, which is taken as UTC.
func (c *timeReader) local(b []byte) (time.Time, bool) {
	hour, ok1 := two(b[12:])
	minute, ok2 := two(b[15:])
	second, ok3 := two(b[18:])
	if !ok1 || !ok2 || !ok3 || b[14] != ':' || b[17] != ':' || hour > 23 || minute > 59 || second > 60 {
		return time.Time{}, false
	}
	rest, nanos := fraction(b[20:])
	var key [17]byte
	copy(key[:], b[:12])
	if len(rest) == 6 && rest[0] == ' ' {
		copy(key[12:], rest[1:])
	} else if len(rest) != 0 {
		return time.Time{}, false
	}
	if key != c.day {
		from, ok := midnight(key)
		if !ok {
			return time.Time{}, false
		}
		c.day, c.from = key, from
	}
	return time.Unix(c.from+int64(hour*3600+minute*60+second), nanos), true
}

// midnight is the Unix second at which a day like 02/Jan/2006: of a zone like -0700 begins.
func midnight(key [17]byte) (int64, bool) {
	day, ok1 := two(key[:])
	year, ok2 := digits(key[7:11])
	month := monthOf(key[3:6])
	if !ok1 || !ok2 || month == 0 || day < 1 || day > 31 {
		return 0, false
	}
	zone := 0
	if key[12] != 0 {
		h, ok1 := two(key[13:])
		m, ok2 := two(key[15:])
		if !ok1 || !ok2 || h > 14 || m > 59 {
			return 0, false
		}
		zone = h*3600 + m*60
		switch key[12] {
		case '-':
			zone = -zone
		case '+':
		default:
			return 0, false
		}
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() - int64(zone), true
}

func monthOf(b []byte) time.Month {
	const names = "JanFebMarAprMayJunJulAugSepOctNovDec"
	for m := range 12 {
		if string(b) == names[3*m:3*m+3] {
			return time.Month(m + 1)
		}
	}
	return 0
}

// iso reads RFC 3339 and what comes close to it: a space for the T, no zone, a zone without a colon.
func iso(b []byte) (time.Time, bool) {
	year, ok1 := digits(b[:4])
	month, ok2 := two(b[5:])
	day, ok3 := two(b[8:])
	hour, ok4 := two(b[11:])
	minute, ok5 := two(b[14:])
	second, ok6 := two(b[17:])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || b[13] != ':' || b[16] != ':' || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 {
		return time.Time{}, false
	}
	rest, nanos := fraction(b[19:])
	zone := 0
	switch {
	case len(rest) == 0, string(rest) == "Z", string(rest) == "z":
	case (rest[0] == '+' || rest[0] == '-') && (len(rest) == 6 && rest[3] == ':' || len(rest) == 5):
		h, ok1 := two(rest[1:])
		m, ok2 := two(rest[len(rest)-2:])
		if !ok1 || !ok2 || h > 14 || m > 59 {
			return time.Time{}, false
		}
		if zone = h*3600 + m*60; rest[0] == '-' {
			zone = -zone
		}
	default:
		return time.Time{}, false
	}
	return time.Unix(time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Unix()-int64(zone), nanos), true
}

// epoch reads numbers: seconds since 1970, or milli-, micro- or nanoseconds when they are so many.
func epoch(b []byte) (time.Time, bool) {
	whole, rest, _ := bytes.Cut(b, []byte("."))
	n, ok := digits(whole)
	if !ok || len(whole) < 9 {
		return time.Time{}, false
	}
	nanos := int64(0)
	if len(rest) > 0 {
		if bytes.ContainsAny(rest, "eE") {
			f, err := strconv.ParseFloat(string(b), 64)
			if err != nil || f > 1e11 {
				return time.Time{}, false
			}
			return time.Unix(int64(f), 0), true
		}
		left, f := fraction(b[len(whole):])
		if len(left) > 0 {
			return time.Time{}, false
		}
		nanos = f
	}
	switch len(whole) {
	case 9, 10:
		return time.Unix(int64(n), nanos), true
	case 12, 13:
		return time.UnixMilli(int64(n)), true
	case 15, 16:
		return time.UnixMicro(int64(n)), true
	case 18, 19:
		return time.Unix(0, int64(n)), true
	}
	return time.Time{}, false
}

// fraction reads .123 or ,123 and returns what follows.
func fraction(b []byte) (rest []byte, nanos int64) {
	if len(b) == 0 || b[0] != '.' && b[0] != ',' {
		return b, 0
	}
	i, scale := 1, int64(100_000_000)
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		nanos += int64(b[i]-'0') * scale
		scale /= 10
	}
	return b[i:], nanos
}

func two(b []byte) (int, bool) {
	if len(b) < 2 || b[0] < '0' || b[0] > '9' || b[1] < '0' || b[1] > '9' {
		return 0, false
	}
	return int(b[0]-'0')*10 + int(b[1]-'0'), true
}

func digits(b []byte) (int, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, n >= 0
}
