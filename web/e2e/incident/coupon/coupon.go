// Package coupon says which coupons are good.
package coupon

import "strings"

// Valid says whether a code is a coupon.
func Valid(code string) bool {
	return pattern().MatchString(strings.ToUpper(code))
}

const expression = `^(SPRING|SUMMER|AUTUMN|WINTER)-(20[2-9][0-9])-(5|10|15|20)$|^FRIEND-[0-9]{1,4}$`
