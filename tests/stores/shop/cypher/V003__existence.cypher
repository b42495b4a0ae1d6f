// assume that edition is enterprise
CREATE CONSTRAINT exists_product_tenant IF NOT EXISTS FOR (n:Product) REQUIRE n.tenant IS NOT NULL;
