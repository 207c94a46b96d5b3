// Package pricing sums orders up.
package pricing

import "math"

// Order is what a customer sends.
type Order struct {
	ID       string
	Items    []Item
	Coupons  []string
	Discount int
	Cents    int
}

// Item is a line of an order.
type Item struct {
	Name  string
	Cents int
	Count int
}

// Price sums the order up, with a rebate for quantity.
func (o *Order) Price() {
	for _, item := range o.Items {
		o.Cents += int(float64(item.Cents*item.Count) * rebate(item.Count))
	}
}

func rebate(count int) float64 {
	r := 1.0
	for i := 1; i < 40; i++ {
		r -= math.Log1p(float64(count)) / math.Pow(10, 4+math.Sqrt(float64(i)))
	}
	return r
}
