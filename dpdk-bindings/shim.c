/* DPDK's static inline functions, given a symbol. No policy. See wrapper.h. */
#include "wrapper.h"

#include <rte_mbuf_pool_ops.h>

int sluice_errno(void)
{
	return rte_errno;
}

uint64_t sluice_rdtsc(void)
{
	return rte_rdtsc();
}

unsigned int sluice_lcore_id(void)
{
	return rte_lcore_id();
}

/* In C because struct rte_eth_link is a bit field whose shape changes between versions. */
int sluice_eth_link_up(uint16_t port)
{
	struct rte_eth_link link;
	int status = rte_eth_link_get_nowait(port, &link);

	return status != 0 ? status : (int)link.link_status;
}

/* In Mbit/s: 0 for a link that is down, UINT32_MAX for one whose speed the driver does not know. */
uint32_t sluice_eth_link_speed(uint16_t port)
{
	struct rte_eth_link link;

	return rte_eth_link_get_nowait(port, &link) != 0 ? 0 : link.link_speed;
}

/* As rte_pktmbuf_pool_create, which takes no flags. `packed` lets objects cross page boundaries, so
 * that they lie one behind the other: AF_XDP registers the pool as one area of count times size, and
 * in 4 KiB pages most of a pool that is not packed would lie outside of it. */
struct rte_mempool *sluice_pktmbuf_pool_create(const char *name, unsigned int mbufs,
					       unsigned int cache, uint16_t data_room,
					       int socket, int packed)
{
	struct rte_pktmbuf_pool_private private = { .mbuf_data_room_size = data_room };
	unsigned int flags = packed ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0;
	struct rte_mempool *pool = rte_mempool_create_empty(
		name, mbufs, sizeof(struct rte_mbuf) + data_room, cache, sizeof(private), socket,
		flags);

	if (pool == NULL)
		return NULL;
	rte_errno = -rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (rte_errno == 0) {
		rte_pktmbuf_pool_init(pool, &private);
		int populated = rte_mempool_populate_default(pool);

		if (populated >= 0) {
			rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
			return pool;
		}
		rte_errno = -populated;
	}
	rte_mempool_free(pool);
	return NULL;
}

struct rte_mbuf *sluice_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int sluice_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void sluice_pktmbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int sluice_pktmbuf_linearize(struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_linearize(mbuf);
}

uint16_t sluice_pktmbuf_data_room_size(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

unsigned int sluice_ring_sp_enqueue_burst(struct rte_ring *ring, struct rte_mbuf *const *mbufs,
					  unsigned int count)
{
	return rte_ring_sp_enqueue_burst(ring, (void *const *)mbufs, count, NULL);
}

unsigned int sluice_ring_sc_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs,
					  unsigned int count)
{
	return rte_ring_sc_dequeue_burst(ring, (void **)mbufs, count, NULL);
}

uint16_t sluice_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t sluice_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

void *sluice_pktmbuf_mtod(struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_mtod(mbuf, void *);
}

uint16_t sluice_pktmbuf_data_len(const struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_data_len(mbuf);
}

uint32_t sluice_pktmbuf_pkt_len(const struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_pkt_len(mbuf);
}

uint16_t sluice_pktmbuf_headroom(const struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_headroom(mbuf);
}

uint16_t sluice_pktmbuf_tailroom(const struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_tailroom(mbuf);
}

uint16_t sluice_mbuf_nb_segs(const struct rte_mbuf *mbuf)
{
	return mbuf->nb_segs;
}

uint16_t sluice_mbuf_port(const struct rte_mbuf *mbuf)
{
	return mbuf->port;
}

uint64_t sluice_mbuf_ol_flags(const struct rte_mbuf *mbuf)
{
	return mbuf->ol_flags;
}

uint16_t sluice_mbuf_refcnt(const struct rte_mbuf *mbuf)
{
	return rte_mbuf_refcnt_read(mbuf);
}

uint32_t sluice_mbuf_hash_usr(const struct rte_mbuf *mbuf)
{
	return mbuf->hash.usr;
}

void sluice_mbuf_fill(struct rte_mbuf *mbuf, uint16_t data_off, uint16_t data_len, uint32_t pkt_len,
		      uint16_t port, uint64_t ol_flags, uint32_t hash_usr)
{
	mbuf->data_off = data_off;
	mbuf->data_len = data_len;
	mbuf->pkt_len = pkt_len;
	mbuf->port = port;
	mbuf->ol_flags = ol_flags;
	mbuf->hash.usr = hash_usr;
}

int sluice_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

uint32_t sluice_softrss(uint32_t *tuple, uint32_t words, const uint8_t *key)
{
	return rte_softrss(tuple, words, key);
}
