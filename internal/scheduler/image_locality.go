package scheduler

// imageLocality prefers nodes that already have the pod's images, by their
// size: pulling less is starting sooner. An image counts less the fewer nodes
// have it, lest every pod of a new image crowd on one node.
type imageLocality struct{}

func (imageLocality) Name() string               { return "ImageLocality" }
func (imageLocality) Weight() int64              { return 1 }
func (imageLocality) Wakes(*PodInfo, Event) bool { return false }

// Below the first sum of sizes a node scores nothing; at the second, times the
// pod's images, it scores full (bytes).
const (
	imageSizeIgnored = 23 << 20
	imageSizeFull    = 1000 << 20
)

func (imageLocality) Score(pod *PodInfo, cluster *Cluster, feasible []*NodeInfo) []int64 {
	sums := make([]int64, len(feasible))
	images := podImages(pod.Pod)
	any := false
	for _, image := range images {
		spread := 0
		for _, node := range cluster.Nodes {
			if _, ok := node.images[image]; ok {
				spread++
			}
		}
		if spread == 0 {
			continue
		}
		any = true
		for i, node := range feasible {
			sums[i] += int64(float64(node.images[image]) * float64(spread) / float64(len(cluster.Nodes)))
		}
	}
	if !any {
		return nil
	}
	full := int64(imageSizeFull) * int64(len(images))
	for i, sum := range sums {
		sum = min(max(sum, imageSizeIgnored), full)
		sums[i] = maxScore * (sum - imageSizeIgnored) / (full - imageSizeIgnored)
	}
	return sums
}
