"""People of all ages, drawn from tables of real people and carved out of real anatomies.

Data flow, one module a step: `population` draws the volumes a person's structures have at an
age; `anatomy` holds the label maps of real heads; `person` warps one of them until its
structures have those volumes; `render` paints it as a T1w scan; `inputs` gives what a model
takes, as a shortcut of the whole preprocessing; `cohort` does this for many people.
"""
