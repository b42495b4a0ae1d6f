"""Customers and their orders."""

from alembic import op

revision = "shop_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TYPE order_status AS ENUM ('OPEN', 'PAID', 'SENT');
        CREATE TABLE customers (
            id        uuid   NOT NULL DEFAULT gen_random_uuid(),
            email     text   NOT NULL,
            settings  jsonb  NOT NULL DEFAULT '{}',
            CONSTRAINT pk_customers PRIMARY KEY (id),
            CONSTRAINT uq_customers_email UNIQUE (email)
        );
        CREATE TABLE orders (
            id           uuid          NOT NULL DEFAULT gen_random_uuid(),
            customer_id  uuid          NOT NULL,
            status       order_status  NOT NULL DEFAULT 'OPEN',
            currency     varchar(32)   NOT NULL DEFAULT 'EUR',
            cents        integer       NOT NULL DEFAULT 0,
            CONSTRAINT pk_orders PRIMARY KEY (id),
            CONSTRAINT fk_orders_customer FOREIGN KEY (customer_id) REFERENCES customers (id),
            CONSTRAINT ck_orders_cents CHECK (cents >= 0)
        );
        CREATE INDEX idx_orders_status ON orders (status);
    """)


def downgrade() -> None:
    op.execute("DROP TABLE orders")
    op.execute("DROP TABLE customers")
    op.execute("DROP TYPE order_status")
