// assume that edition is enterprise
CREATE CONSTRAINT exists_novel_novel_id IF NOT EXISTS FOR (n:Novel) REQUIRE n.novel_id IS NOT NULL;
CREATE CONSTRAINT exists_character_id IF NOT EXISTS FOR (n:Character) REQUIRE n.id IS NOT NULL;
CREATE CONSTRAINT exists_character_novel_id IF NOT EXISTS FOR (n:Character) REQUIRE n.novel_id IS NOT NULL;
CREATE CONSTRAINT exists_world_rule_id IF NOT EXISTS FOR (n:WorldRule) REQUIRE n.id IS NOT NULL;
CREATE CONSTRAINT exists_world_rule_novel_id IF NOT EXISTS FOR (n:WorldRule) REQUIRE n.novel_id IS NOT NULL;
CREATE CONSTRAINT exists_event_id IF NOT EXISTS FOR (n:Event) REQUIRE n.id IS NOT NULL;
CREATE CONSTRAINT exists_event_novel_id IF NOT EXISTS FOR (n:Event) REQUIRE n.novel_id IS NOT NULL;
CREATE CONSTRAINT exists_location_id IF NOT EXISTS FOR (n:Location) REQUIRE n.id IS NOT NULL;
CREATE CONSTRAINT exists_location_novel_id IF NOT EXISTS FOR (n:Location) REQUIRE n.novel_id IS NOT NULL;
CREATE CONSTRAINT exists_organization_id IF NOT EXISTS FOR (n:Organization) REQUIRE n.id IS NOT NULL;
CREATE CONSTRAINT exists_organization_novel_id IF NOT EXISTS FOR (n:Organization) REQUIRE n.novel_id IS NOT NULL;
CREATE CONSTRAINT exists_transportation_id IF NOT EXISTS FOR (n:Transportation) REQUIRE n.id IS NOT NULL;
CREATE CONSTRAINT exists_character_state_id IF NOT EXISTS FOR (n:CharacterState) REQUIRE n.id IS NOT NULL;
CREATE CONSTRAINT node_key_character_state_character_chapter IF NOT EXISTS FOR (n:CharacterState) REQUIRE (n.character_id, n.chapter) IS NODE KEY;
