package controller

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestClassInUse: a class that a claim refers to stays, also if the informer has not told of the claim.
func TestClassInUse(t *testing.T) {
	for name, add := range map[string]func(*Controllers){
		"with news of all":       (*Controllers).addClassProtection,
		"without news of claims": func(c *Controllers) { deaf(c, "persistentvolumeclaims"); c.addClassProtection() },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, add, func(c *cluster) {
				classes, claims := c.client.StorageV1().VolumeAttributesClasses(), c.client.CoreV1().PersistentVolumeClaims("a")
				must[*storagev1.VolumeAttributesClass](t)(classes.Create(c.ctx, &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}}, metav1.CreateOptions{}))
				protected := func() (*storagev1.VolumeAttributesClass, bool) {
					t.Helper()
					time.Sleep(time.Minute)
					c.settle()
					class := must[*storagev1.VolumeAttributesClass](t)(classes.Get(c.ctx, "gold", metav1.GetOptions{}))
					return class, slices.Contains(class.Finalizers, classProtection)
				}
				must[*corev1.PersistentVolumeClaim](t)(claims.Create(c.ctx, &corev1.PersistentVolumeClaim{
					ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: ptr("gold")},
				}, metav1.CreateOptions{}))
				class, ok := protected()
				if !ok {
					t.Fatal("it is not protected")
				}
				now := metav1.Now()
				class.DeletionTimestamp = &now
				must[*storagev1.VolumeAttributesClass](t)(classes.Update(c.ctx, class, metav1.UpdateOptions{}))
				if _, ok = protected(); !ok {
					t.Error("it may go although a claim refers to it")
				}
				if name == "without news of claims" {
					return // nobody tells that the claim goes
				}
				if err := claims.Delete(c.ctx, "c", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, ok = protected(); ok {
					t.Error("it may not go although nobody refers to it")
				}
			})
		})
	}
}
