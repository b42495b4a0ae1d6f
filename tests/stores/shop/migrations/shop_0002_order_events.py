"""What happened to an order, which nobody changes afterwards."""

from alembic import op

revision = "shop_0002"
down_revision = "shop_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE order_events (
            id         bigint       GENERATED ALWAYS AS IDENTITY,
            order_id   uuid         NOT NULL,
            happened   timestamptz  NOT NULL DEFAULT now(),
            payload    jsonb        NOT NULL,
            CONSTRAINT pk_order_events PRIMARY KEY (id)
        );
        CREATE INDEX idx_order_events_order ON order_events (order_id, happened);
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'events are not changed';
            END
        $$;
        CREATE TRIGGER trg_order_events_append_only BEFORE UPDATE OR DELETE ON order_events
            FOR EACH ROW EXECUTE FUNCTION refuse_change();
    """)


def downgrade() -> None:
    op.execute("DROP TABLE order_events")
    op.execute("DROP FUNCTION refuse_change()")
