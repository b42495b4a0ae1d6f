CREATE INDEX novel_app_id_index IF NOT EXISTS FOR (n:Novel) ON (n.app_id);
CREATE INDEX character_novel_index IF NOT EXISTS FOR (n:Character) ON (n.novel_id);
CREATE INDEX worldrule_novel_index IF NOT EXISTS FOR (n:WorldRule) ON (n.novel_id);
CREATE INDEX event_novel_index IF NOT EXISTS FOR (n:Event) ON (n.novel_id);
CREATE INDEX location_novel_index IF NOT EXISTS FOR (n:Location) ON (n.novel_id);
CREATE INDEX organization_novel_index IF NOT EXISTS FOR (n:Organization) ON (n.novel_id);
CREATE INDEX event_timestamp_index IF NOT EXISTS FOR (n:Event) ON (n.timestamp);
CREATE INDEX character_state_chapter_index IF NOT EXISTS FOR (n:CharacterState) ON (n.chapter);
CREATE INDEX location_coords_index IF NOT EXISTS FOR (n:Location) ON (n.x, n.y);
