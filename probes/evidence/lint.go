package evidence

import (
	"slices"
	"strings"
)

// LintCredential says what is wrong with the form of a credential that people copied: white space, quotes, a scheme that
// does not belong to it, a placeholder, a JWT that was cut. It never repeats the text.
func LintCredential(text string) (problems []string) {
	problems = LintPassword(text)
	add := func(found bool, what string) {
		if found {
			problems = append(problems, what)
		}
	}
	trimmed := strings.TrimSpace(text)
	lower := strings.ToLower(trimmed)
	add(len(trimmed) > 1 && (trimmed[0] == '"' || trimmed[0] == '\'') && trimmed[len(trimmed)-1] == trimmed[0], "stands in quotes, which would be sent along")
	add(strings.HasPrefix(lower, "bearer ") || strings.HasPrefix(lower, "basic "), "begins with the name of a scheme, which would be sent twice")
	add(strings.ContainsFunc(text, func(r rune) bool { return r > 0x7e }), "holds characters beyond ASCII, such as a non-breaking space or typographic quotes")
	if t := DecodeToken(trimmed); t.Format == "jwt" || strings.HasPrefix(trimmed, "eyJ") {
		problems = append(problems, t.Problems...)
	}
	return problems
}

// placeholders are what stands in examples where a credential should be.
var placeholders = []string{"changeme", "change_me", "change-me", "your_", "your-", "<", "placeholder", "replace_me", "replaceme", "todo", "example", "insert_", "dummy"}

// LintPassword says what is wrong with the form of a password, which may hold any character.
func LintPassword(text string) (problems []string) {
	trimmed := strings.TrimSpace(text)
	lower := strings.ToLower(trimmed)
	if trimmed != text {
		problems = append(problems, "begins or ends with white space")
	}
	if strings.ContainsAny(text, "\r\n") {
		problems = append(problems, "holds a line break")
	}
	filler := len(lower) >= 4 && strings.Trim(lower, lower[:1]) == "" && strings.Contains("x*.-_", lower[:1])
	if filler || slices.ContainsFunc(placeholders, func(word string) bool { return strings.HasPrefix(lower, word) }) {
		problems = append(problems, "looks like a placeholder")
	}
	return problems
}

// environments are words for the two sorts of environment, as keys and operators write them.
var environments = map[string]string{
	"test": "test", "tst": "test", "sandbox": "test", "sbx": "test", "staging": "test", "stage": "test", "dev": "test", "development": "test", "qa": "test", "uat": "test",
	"live": "live", "prod": "live", "production": "live", "prd": "live",
}

// OtherEnvironment gives the mark by which a key says that it belongs to another environment than the one named: keys such
// as sk_test_… carry it before their secret part. Empty: it carries none, or the right one, or the name says nothing.
func OtherEnvironment(key, environment string) string {
	parts := strings.FieldsFunc(strings.ToLower(environment), func(r rune) bool { return r == '-' || r == '_' || r == ' ' || r == '.' })
	here := ""
	for _, part := range parts {
		if sort := environments[part]; sort != "" {
			here = sort
		}
	}
	marks := strings.FieldsFunc(strings.TrimSpace(key), func(r rune) bool { return r == '_' || r == '-' })
	for i := range min(len(marks)-1, 3) { // the last part is the secret
		if sort := environments[strings.ToLower(marks[i])]; sort != "" && here != "" && sort != here {
			return marks[i]
		}
	}
	return ""
}
