CREATE INDEX product_tenant IF NOT EXISTS FOR (n:Product) ON (n.tenant);
CREATE INDEX order_status IF NOT EXISTS FOR (n:Order) ON (n.status, n.happened);
CREATE INDEX bought_happened IF NOT EXISTS FOR ()-[r:BOUGHT]-() ON (r.happened);
