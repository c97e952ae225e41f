package diagnose

import (
	"strings"
	"unicode/utf8"
)

// spoken gives words of languages that are written without spaces, or in letters of their own, in English. Longer ones stand first.
// Languages of Latin letters have theirs in the lexicon, without accents.
var spoken = strings.NewReplacer(
	// Chinese
	"请先登录", " not logged in ", "请重新登录", " log in again ", "请登录", " not logged in ", "尚未登录", " not logged in ", "未登录", " not logged in ", "未登陆", " not logged in ", "未登入", " not logged in ",
	"没有权限", " no permission ", "权限不足", " insufficient permission ", "无访问权限", " no permission ", "无权限", " no permission ", "無權限", " no permission ", "无权", " no permission ", "未授权", " unauthorized ", "未授權", " unauthorized ", "权限", " permission ", "權限", " permission ", "授权", " authorization ", "鉴权", " authentication ", "认证", " authentication ", "認證", " authentication ",
	"时间戳", " timestamp ", "時間戳", " timestamp ", "签名", " signature ", "簽名", " signature ", "验签", " signature ", "令牌", " token ", "密钥", " key ", "秘钥", " key ", "密鑰", " key ", "密码", " password ", "密碼", " password ",
	"用户名", " username ", "账号", " account ", "帐号", " account ", "帳號", " account ", "账户", " account ", "帐户", " account ", "用户", " user ", "用戶", " user ", "应用", " application ", "证书", " certificate ", "憑證", " certificate ", "凭证", " credential ",
	"其他设备", " another device ", "别处登录", " logged in elsewhere ", "异地登录", " logged in elsewhere ", "登录", " login ", "登入", " login ",
	"不正确", " incorrect ", "不正確", " incorrect ", "有误", " incorrect ", "错误", " incorrect ", "錯誤", " incorrect ", "无效", " invalid ", "無效", " invalid ", "不合法", " invalid ", "非法", " invalid ", "校验失败", " verification failed ", "验证失败", " verification failed ", "失败", " failed ", "失敗", " failed ",
	"已过期", " expired ", "过期", " expired ", "過期", " expired ", "已失效", " expired ", "失效", " expired ", "不存在", " does not exist ", "未找到", " not found ", "不能为空", " missing ", "为空", " missing ", "缺少", " missing ", "缺失", " missing ", "未提供", " not provided ",
	"不匹配", " does not match ", "不一致", " does not match ", "不在", " is not in ", "白名单", " ip whitelist ", "白名單", " ip whitelist ", "黑名单", " blacklisted ip ", "过于频繁", " too frequent ", "频繁", " too frequent ", "限流", " rate limit exceeded ", "频率", " rate ", "频次", " rate ", "超出", " exceeded ", "超过", " exceeded ", "超限", " limit exceeded ", "余额不足", " quota exceeded ", "配额", " quota ", "欠费", " unpaid subscription ",
	"锁定", " locked ", "鎖定", " locked ", "冻结", " frozen account ", "禁用", " disabled ", "停用", " disabled ", "封禁", " banned ", "注销", " logged out ", "吊销", " revoked ", "撤销", " revoked ", "重放", " replayed ", "重复", " duplicate ", "拒绝", " denied ", "拒絕", " denied ", "禁止", " forbidden ",
	"系统异常", " internal error ", "系统错误", " internal error ", "服务异常", " internal error ", "内部错误", " internal error ", "服务不可用", " service unavailable ", "维护", " maintenance ", "超时", " timed out ", "请求", " request ", "来源", " origin ", "未开通", " not enabled subscription ", "未启用", " not enabled ",
	// Japanese
	"正しくありません", " incorrect ", "間違", " incorrect ", "期限切れ", " expired ", "有効期限", " expired ", "トークン", " token ", "パスワード", " password ", "ユーザー", " user ", "ユーザ", " user ", "アカウント", " account ", "ロック", " locked ", "ログインしてください", " not logged in ", "ログイン", " login ", "署名", " signature ", "権限がありません", " no permission ", "権限", " permission ", "拒否", " denied ", "必要です", " required ", "無効", " invalid ", "認証", " authentication ", "ありません", " missing ", "見つかりません", " not found ",
	// Korean
	"유효하지 않은", " invalid ", "유효하지 않", " invalid ", "잘못된", " invalid ", "올바르지 않", " invalid ", "만료", " expired ", "토큰", " token ", "권한이 없", " no permission ", "권한", " permission ", "로그인이 필요", " not logged in ", "로그인", " login ", "인증", " authentication ", "실패", " failed ", "비밀번호", " password ", "서명", " signature ", "필요", " required ", "잠겼", " locked ", "잠금", " locked ", "거부", " denied ", "사용자", " user ",
	// Russian, as stems
	"истёк", " expired ", "истек", " expired ", "просроч", " expired ", "неверн", " invalid ", "неправильн", " invalid ", "недействител", " invalid ", "некорректн", " invalid ", "токен", " token ", "доступ запрещ", " access denied ", "запрещ", " forbidden ", "отказано", " denied ", "доступ", " access ", "парол", " password ", "пользовател", " user ", "подпис", " signature ", "заблокирован", " locked ", "ключ", " key ", "требуется", " required ", "не авторизован", " not authenticated ", "отсутствует", " missing ", "прав", " permission ", "сертификат", " certificate ",
)

// inEnglish translates what servers say in other languages, as far as it is known.
func inEnglish(text string) string {
	for i := 0; i < len(text); i++ {
		if text[i] >= utf8.RuneSelf {
			return accents.Replace(spoken.Replace(text))
		}
	}
	return text
}

// accents takes them off Latin letters.
var accents = strings.NewReplacer("á", "a", "à", "a", "â", "a", "ä", "a", "ã", "a", "å", "a", "é", "e", "è", "e", "ê", "e", "ë", "e", "í", "i", "ì", "i", "î", "i", "ï", "i", "ó", "o", "ò", "o", "ô", "o", "ö", "o", "õ", "o", "ú", "u", "ù", "u", "û", "u", "ü", "u", "ñ", "n", "ç", "c", "ß", "ss", "É", "E", "’", "'", "‘", "'")
