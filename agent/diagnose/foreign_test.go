package diagnose

import "testing"

// TestExplain_otherLanguages: a refusal is understood in other languages and scripts, spaces between words or not.
func TestExplain_otherLanguages(t *testing.T) {
	for text, want := range map[string]Cause{
		"访问令牌已过期": TokenExpired,
		"ip不在白名单": BlockedByGateway,
		"用户没有权限":  PermissionDenied,
		"アクセストークンの有効期限が切れています":       TokenExpired,
		"토큰이 만료되었습니다":                TokenExpired,
		"Срок действия токена истёк": TokenExpired,
		"Das Token ist abgelaufen":   TokenExpired,
		"El token ha caducado":       TokenExpired,
		"Le jeton a expiré":          TokenExpired,
		"Il token è scaduto":         TokenExpired,
	} {
		if f := Explain(live(401, "bearer", "", text))[0]; f.Cause != want {
			t.Errorf("%s: %s (%s), want %s", text, f.Cause, f.Sure, want)
		}
	}
}
