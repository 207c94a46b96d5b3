package afterglow

import (
	"sync"
	"time"

	"github.com/afterglow-profiler/afterglow/agent/go/afterglowv1"
)

// itemOverheadBytes is what a profile takes in memory beside its pprof and labels.
const itemOverheadBytes = 512

// item is a profile on its way.
type item struct {
	profile   *afterglowv1.Profile
	deadline  time.Time
	notBefore time.Time
	attempts  int
}

// size is what the item takes in the queue, in bytes.
func (i *item) size() int {
	size := len(i.profile.Pprof) + itemOverheadBytes
	for name, value := range i.profile.Labels {
		size += len(name) + len(value)
	}
	return size
}

// queue holds all profiles whose outcome is not known, waiting or under way, bounded in bytes. The oldest waiting one makes room.
type queue struct {
	mu       sync.Mutex
	bytesMax int
	bytes    int
	waiting  []*item
	underWay int
	closed   bool
	// wake says that something may be done: at most one such word waits.
	wake chan struct{}
}

func newQueue(bytesMax int) *queue {
	return &queue{bytesMax: bytesMax, wake: make(chan struct{}, 1)}
}

// offer takes an item in, and returns how many older ones were dropped for it. It never waits. False means that it was not taken.
func (q *queue) offer(i *item) (dropped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := i.size()
	if q.closed || size > q.bytesMax {
		return 0, false
	}
	for q.bytes+size > q.bytesMax {
		if len(q.waiting) == 0 {
			return dropped, false
		}
		q.bytes -= q.waiting[0].size()
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		dropped++
	}
	q.bytes += size
	q.waiting = append(q.waiting, i)
	q.signal()
	return dropped, true
}

// take takes out the first item that may be sent now; it is then under way.
func (q *queue) take(now time.Time) *item {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n, i := range q.waiting {
		if !i.notBefore.After(now) {
			q.waiting = append(q.waiting[:n:n], q.waiting[n+1:]...)
			q.underWay++
			return i
		}
	}
	return nil
}

// putBack returns items that were under way to the front, in their order.
func (q *queue) putBack(items ...*item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.underWay -= len(items)
	q.waiting = append(append(make([]*item, 0, len(items)+len(q.waiting)), items...), q.waiting...)
}

// settle forgets an item that was under way.
func (q *queue) settle(i *item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.underWay--
	q.bytes -= i.size()
}

// expire drops the waiting items that are past their deadline, and returns how many.
func (q *queue) expire(now time.Time) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := make([]*item, 0, len(q.waiting))
	for _, i := range q.waiting {
		if i.deadline.After(now) {
			kept = append(kept, i)
		} else {
			q.bytes -= i.size()
		}
	}
	expired := len(q.waiting) - len(kept)
	q.waiting = kept
	return expired
}

// close lets nothing more in.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// state returns how many items there are, their bytes, and whether the queue is closed.
func (q *queue) state() (items, bytes int, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) + q.underWay, q.bytes, q.closed
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
